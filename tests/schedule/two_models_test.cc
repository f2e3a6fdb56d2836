// The order of a distillation: teacher and student side by side.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "schedule/hand_orders.h"
#include "schedule/validate.h"
#include "tests/layer/tiny_model.h"

namespace farskip {
namespace {

TEST(TwoModels, ComputeUnderEachOthersCollectives) {
  const ModelConfig model = testing::tiny_model("mmm");
  for (const bool terms : {false, true}) {
    GraphOptions options{Phase::train, Layout::parse("ep=2,dp=2"), 2, Scope::step};
    options.match_streams = options.match_routes = terms;
    options.teacher = Connectivity::standard(model.num_layers());
    const StageGraph graph = build_graph(model, Connectivity::farskip(model.num_layers()), options);
    const Schedule schedule = two_models_schedule(graph);
    validate(graph, schedule);
    validate(graph, paper_schedule(graph));
    // Under each of the teacher's combines there is work of the student, but for the last.
    int under = 0, combines = 0;
    for (size_t i = 0; i < schedule.ops.size(); ++i) {
      const Node& node = graph.node(schedule.ops[i].node);
      if (node.pass != Pass::teacher || node.stage != Stage::combine || schedule.ops[i].kind != OpKind::launch)
        continue;
      ++combines;
      for (size_t j = i + 1; schedule.ops[j].node != schedule.ops[i].node; ++j) {
        if (schedule.ops[j].kind != OpKind::run || graph.node(schedule.ops[j].node).pass != Pass::forward) continue;
        ++under;
        break;
      }
    }
    EXPECT_EQ(combines, 2 * 3);
    EXPECT_GE(under, 2 * 2);
  }
}

}  // namespace
}  // namespace farskip
