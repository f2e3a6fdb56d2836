#include "train/teacher.h"

#include <filesystem>

#include "base/error.h"
#include "config/checkpoint_folder.h"
#include "model/checkpoint.h"
#include "train/load_cost.h"

namespace farskip {

std::string teacher_folder(const TrainConfig& config) {
  const std::string folder = resolve_model_folder(config.distill.teacher);
  if (!std::filesystem::exists(folder + "/config.json"))
    fail("teacher={}: no folder with a config.json and weights", config.distill.teacher);
  return folder;
}

std::string student_folder(const TrainConfig& config) {
  return config.load.empty() ? teacher_folder(config) : resolve_model_folder(config.load);
}

TeacherModel TeacherModel::load(const TrainConfig& config) {
  const std::string folder = teacher_folder(config);
  TeacherModel teacher;
  teacher.config = load_model_config(folder);
  const int64_t layers = teacher.config.num_layers();
  teacher.connectivity = Connectivity::from_config(teacher.config.raw, layers);
  const std::string& expected = config.distill.teacher_connectivity;
  if (!expected.empty() && Connectivity::parse(expected, layers) != teacher.connectivity) {
    fail(
        "teacher={}: its weights were trained with connectivity {}, the recipe says teacher_connectivity={}; the "
        "connectivity belongs to the weights: correct the recipe, or name another folder",
        config.distill.teacher, teacher.connectivity.to_string(), Connectivity::parse(expected, layers).to_string());
  }
  return teacher;
}

ChosenConnectivity default_student(const ModelConfig& model) {
  const int64_t layers = model.num_layers();
  int64_t first = 0;
  while (first < layers && !model.is_moe(first)) ++first;
  if (first == layers) fail("the teacher has no MoE layer: nothing of it communicates that FarSkip would hide");
  if (first == 0)
    return {Connectivity::farskip(layers), "every layer is a MoE layer, whose exchanges are to be hidden"};
  return {Connectivity::parse(fmt::format("layers={}-{}", first, layers - 1), layers),
          fmt::format("layer{} {} dense: no exchange to hide, and the dearest to convert", first == 1 ? "" : "s",
                      first == 1 ? "0 is" : fmt::format("0 to {} are", first - 1))};
}

void check_pair(const TrainConfig& config, const TeacherModel& teacher, const ModelConfig& student,
                const Connectivity& connectivity) {
  const ModelConfig& model = teacher.config;
  const auto same = [&](const char* what, int64_t of_teacher, int64_t of_student) {
    if (of_teacher == of_student) return;
    fail("teacher={} has {} {}, the student {} of load={}; both have to be of one shape", config.distill.teacher,
         of_teacher, what, of_student, config.load);
  };
  same("layers", model.num_layers(), student.num_layers());
  same("tokens in its vocabulary", model.vocab_size, student.vocab_size);
  same("channels", model.hidden_size, student.hidden_size);
  same("experts", model.num_experts, student.num_experts);
  same("experts per token", model.top_k, student.top_k);
  same("MoE layers", num_moe_layers(model), num_moe_layers(student));
  if (model.layers != student.layers) fail("teacher and student have their MoE layers at other places");
  if (connectivity.is_standard() && !teacher.connectivity.is_standard()) {
    fail(
        "the student would be standard and its teacher {}: that is the pair exchanged; give the standard model as "
        "teacher (now {})",
        teacher.connectivity.to_string(), config.distill.teacher);
  }
  if (connectivity == teacher.connectivity && config.load.empty()) {
    fail(
        "teacher={} has connectivity {} itself, and the student would begin with its weights: there is nothing to "
        "learn; give another connectivity, or load=FOLDER for other weights",
        config.distill.teacher, connectivity.to_string());
  }
}

Teacher::Teacher(const TrainConfig& config, const TeacherModel& model, const ParameterOptions& of_student,
                 const Layout& layout, Transport& world) {
  ParameterOptions options = of_student;
  options.keep_main = false;
  options.frozen.clear();
  parameters_ = std::make_unique<ParameterSet>(std::make_shared<const ParameterTable>(model.config), options);
  const std::string folder = teacher_folder(config);
  log_load_cost(folder, load_checkpoint(folder, *parameters_), world);
  StageMathOptions math;
  math.expert_ranks = layout.ep;
  math.distill = true;
  math.keep_scores = config.distill.router_weight > 0;
  math_ = std::make_unique<StageMath>(model.config, parameters_->weights(), config.seq_length, math);
}

}  // namespace farskip
