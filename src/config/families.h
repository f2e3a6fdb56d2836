#pragma once
// The model families: how each spells, in its config.json, the fields of ModelConfig. A family is one small function of
// differences; nothing outside families.cc asks for a model's name.

#include <string>
#include <vector>

#include "config/json_reader.h"
#include "config/model_config.h"

namespace farskip {

/// Models of a connectivity that only this program knows are exported under names of their own, which begin so
/// (layer/export_config.h). They belong to the family whose name stands behind the prefix: ModelConfig has that one.
inline constexpr const char* own_architecture_prefix = "FarSkip";
inline constexpr const char* own_model_type_prefix = "farskip_";

/// One family. The defaults are those of its transformers class, for options that a config.json leaves out; shapes have
/// no defaults (a guessed shape helps nobody).
struct Family {
  const char* architecture;  ///< architectures[0]
  const char* model_type;    ///< decides only where `architectures` is absent
  double rms_norm_eps;
  double rope_theta;
  int64_t max_position_embeddings;
  const char* text_config;  ///< the key of the language model's own object; nullptr: config.json itself
  /// Fills the fields whose spelling differs between families; those that all share are filled already.
  void (*read)(const JsonReader& config, const Family& family, ModelConfig& model);
};

/// The family of a config.json. Throws Error, with the list of supported ones, where there is none.
const Family& find_family(const JsonReader& config, const std::string& architecture, const std::string& model_type);

}  // namespace farskip
