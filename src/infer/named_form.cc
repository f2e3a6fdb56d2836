#include "base/error.h"
#include "infer/step_form.h"
#include "sim/search.h"

namespace farskip {

ChooseForm named_form(const std::string& schedule) {
  if (schedule != "reference" && schedule != "async" && schedule != "paper" && schedule != "two-batch") {
    fail("schedule '{}': steps of inference run as reference, async, paper or two-batch", schedule);
  }
  StepForm form;
  form.num_microbatches = schedule == "two-batch" ? 2 : 1;
  form.schedule = [schedule](const StageGraph& graph) { return named_schedule(schedule, graph, {}); };
  return [form](const StepBucket&) { return form; };
}

}  // namespace farskip
