// simulate MODEL LAYOUT CONNECTIVITY: what orders of a training step's stages would hide on eight MI325X; nothing is
// run.

#include <cstdio>
#include <exception>

#include "farskip/config/model_config.h"
#include "farskip/layer/stage_graph.h"
#include "farskip/sim/search.h"
#include "farskip/trace/overlap.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: simulate MODEL LAYOUT CONNECTIVITY, as in: simulate deepseek-v2-lite ep=8 farskip\n");
    return 2;
  }
  try {
    const auto model = farskip::load_model_config(argv[1]);
    const auto connectivity = farskip::Connectivity::parse(argv[3], model.num_layers());
    farskip::GraphOptions options;  // one microbatch, forward, backward and optimizer
    options.layout = farskip::Layout::parse(argv[2]);
    const auto graph = farskip::build_graph(model, connectivity, options);
    const farskip::Workload load{.sequences = 8};
    const auto costs = farskip::model_costs(graph, model, farskip::machine("mi325x"), load);
    for (const char* name : {"reference", "async", "paper"}) {
      const auto simulation = farskip::simulate(graph, farskip::named_schedule(name, graph, costs), costs);
      const auto overlap = farskip::summarize(farskip::measure_overlap(simulation.timeline));
      std::printf("%-10s %7.2f s, hidden %5.1f %%\n", name, simulation.step_us / 1e6, 100 * overlap.total.hidden());
    }
    return 0;
  } catch (const std::exception& error) {  // farskip::Error names the presets, the spellings, the divisors
    std::fprintf(stderr, "simulate: %s\n", error.what());
    return 1;
  }
}
