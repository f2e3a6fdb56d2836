#include "train/schedule_choice.h"

#include <fmt/format.h>

#include "schedule/text.h"
#include "sim/search.h"
#include "train/parameter_rates.h"

namespace farskip {
namespace {

/// Steps of the paper's order whose times the search for a schedule is based on; the first are warm-up.
constexpr int num_warmup_steps = 2;
constexpr int num_profiled_steps = 4;

}  // namespace

ScheduleChoice::ScheduleChoice(const TrainConfig& config, TrainingSession& session, LinkSpec link)
    : config_(config),
      session_(session),
      link_(link),
      profile_(session.graph()),
      searching_(config.schedule == "search"),
      schedule_(named_schedule(searching_ ? "paper" : config.schedule, session.graph(), modelled_costs())) {}

CostTable ScheduleChoice::modelled_costs() const {
  const ModelConfig& model = session_.model().config;
  return model_costs(session_.graph(), model, machine("cpu"),
                     training_workload(config_, frozen_weights(model, config_)));
}

void ScheduleChoice::restore(const std::string& text, const std::string& source) {
  if (!searching_ || text.empty()) return;
  schedule_ = schedule_from_text(session_.graph(), text, source);
  schedule_.name = "search (of the checkpoint)";
  searching_ = false;
}

bool ScheduleChoice::observe(const StepResult& step, int64_t done) {
  if (!searching_) return false;
  if (done >= num_warmup_steps) profile_.add(step);
  if (profile_.num_steps() < num_profiled_steps) return false;
  searching_ = false;
  CostTable costs = profile_.table(link_, *session_.communicators().world);
  const SearchResult result = search_schedule(session_.graph(), costs);
  schedule_ = result.schedule;
  found_ = fmt::format("schedule: {}, {:.1f} ms a step in simulation (paper: {:.1f})", schedule_.name,
                       result.step_us / 1e3, result.candidates.front().step_us / 1e3);
  set_costs(std::move(costs));
  return true;
}

void ScheduleChoice::measure(const StepResult& last) {
  if (!costs_.us.empty()) return;
  CostProfile profile(session_.graph());
  profile.add(last);
  set_costs(profile.table(link_, *session_.communicators().world));
}

void ScheduleChoice::set_costs(CostTable costs) {
  costs_ = std::move(costs);
  hint_ = exposure_hint(session_.graph(), costs_, config_.schedule != "reference");
}

Timeline ScheduleChoice::simulated() const {
  Timeline timeline = simulate(session_.graph(), schedule_, costs_).timeline;
  timeline.title = "simulated: " + schedule_.name;
  return timeline;
}

}  // namespace farskip
