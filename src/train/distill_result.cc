#include "train/distill_result.h"

#include <fmt/format.h>

#include "base/files.h"

namespace farskip {

std::string held_out_text(const DistillStats& stats) {
  std::string text = fmt::format("KL held out: {:.4f} | same top-1: {:.1f} % | ", stats.kl, 100 * stats.top1);
  if (!stats.drift.empty()) {
    text += fmt::format("router drift: {:.1f} % (worst layer {:.1f} %) | ", 100 * stats.mean_drift(),
                        100 * stats.worst_drift());
  }
  return text;
}

void write_distill_result(const TrainConfig& config, TrainingSession& session, const DistillCourse& course) {
  nlohmann::json calibration;
  if (const auto& report = session.calibration()) {
    calibration = {{"accepted", report->accepted()},
                   {"tokens", report->fitted_tokens},
                   {"kl_before", report->before.kl},
                   {"kl_after", report->after.kl}};
  }
  const nlohmann::json result = {{"teacher", config.distill.teacher},
                                 {"teacher_connectivity", session.model().teacher->connectivity.to_string()},
                                 {"connectivity", session.model().connectivity.to_string()},
                                 {"layout", config.layout},
                                 {"seed", config.seed},
                                 {"learning_rate", config.lr},
                                 {"global_batch_size", config.global_batch_size},
                                 {"seq_length", config.seq_length},
                                 {"steps", course.steps},
                                 {"tokens", session.position(course.steps).consumed_samples * config.seq_length},
                                 {"seconds", course.seconds},
                                 {"stopped_early", course.stopped_early},
                                 {"steps_skipped", session.guard().num_skipped()},
                                 {"roll_backs", session.guard().num_roll_backs()},
                                 {"calibration", calibration},
                                 {"held_out", course.held_out},
                                 {"export", config.export_folder}};
  create_parent_folders(config.distill.result);
  write_file(config.distill.result, result.dump(1) + "\n");
}

}  // namespace farskip
