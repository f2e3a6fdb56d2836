#pragma once
// The teacher of a distillation: which graph it runs, and its weights.

#include <memory>
#include <string>

#include "config/train_config.h"
#include "layer/connectivity.h"
#include "layer/layout.h"
#include "model/parameter_set.h"
#include "model/stage_math.h"
#include "transport/transport.h"

namespace farskip {

/// Folder of a recipe's teacher (of a run's checkpoints the newest), and of the weights that its student begins with.
std::string teacher_folder(const TrainConfig& config);
std::string student_folder(const TrainConfig& config);

/// The teacher's shape and connectivity, both from its config.json: no recipe changes the graph that weights belong to.
struct TeacherModel {
  ModelConfig config;
  Connectivity connectivity;
  /// Throws Error where the folder cannot be read, or the recipe's teacher_connectivity is another one.
  static TeacherModel load(const TrainConfig& config);
};

/// The connectivity of a student whose recipe names none, and why, in a sentence.
struct ChosenConnectivity {
  Connectivity connectivity;
  std::string reason;
};
ChosenConnectivity default_student(const ModelConfig& model);

/// Throws Error where a student cannot learn from this teacher: another shape; the same connectivity and the same
/// weights, so that there is nothing to learn; or a standard student of a teacher that is not, which is the pair
/// exchanged.
void check_pair(const TrainConfig& config, const TeacherModel& teacher, const ModelConfig& student,
                const Connectivity& connectivity);

/// A teacher's weights on one rank, to compute with and nothing else.
class Teacher {
 public:
  /// Called by all ranks: each reads its own experts, which are those that it has of the student.
  Teacher(const TrainConfig& config, const TeacherModel& model, const ParameterOptions& of_student,
          const Layout& layout, Transport& world);
  const StageMath& math() const { return *math_; }

 private:
  std::unique_ptr<ParameterSet> parameters_;
  std::unique_ptr<StageMath> math_;
};

}  // namespace farskip
