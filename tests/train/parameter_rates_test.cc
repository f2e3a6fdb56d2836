// What a recipe freezes, as the cost model and the memory plan see it.

#include "train/parameter_rates.h"

#include <gtest/gtest.h>

#include "config/model_config.h"
#include "schedule/hand_orders.h"
#include "sim/memory.h"

namespace farskip {
namespace {

TEST(FrozenCosts, AModelThatIsFrozenAsAWholeHasNoGradientsAnywhere) {
  for (const char* name : {"small-moonlight", "small-deepseek-v2", "small-llama-4-scout"}) {
    for (const bool tied : {false, true}) {
      ModelConfig model = load_model_config(name);
      model.tie_word_embeddings = tied;
      TrainConfig config;
      config.freeze = "*";
      Workload load;
      load.frozen = frozen_weights(model, config);
      GraphOptions options;
      options.layout.ep = options.layout.dp = 2;
      const StageGraph graph = build_graph(model, Connectivity::farskip(model.num_layers()), options);
      int gradients = 0;
      const Machine cpu = machine("cpu");
      const CostTable costs = model_costs(graph, model, cpu, load);
      for (NodeId id = 0; id < graph.num_nodes(); ++id) {
        const Node& node = graph.node(id);
        const std::string where = std::string(name) + (tied ? ", tied: " : ": ") + graph.name(id);
        if (node.pass == Pass::wgrad || node.stage == Stage::optimizer) {
          EXPECT_EQ(costs.us[id], cpu.kernel_gap_us) << where;
          ++gradients;
        }
        if (is_gradient_reduction(node.stage)) {
          EXPECT_EQ(collective_bytes(graph, model, load, id), 0) << where;
        }
      }
      EXPECT_GT(gradients, 2 * model.num_layers());
      const MemoryPlan plan = plan_memory(graph, reference_schedule(graph), model, load);
      EXPECT_EQ(plan.gradients, 0) << name;
      EXPECT_EQ(plan.moments, 0) << name;
      EXPECT_GT(plan.weights, 0);
    }
  }
}

}  // namespace
}  // namespace farskip
