#pragma once
// Folders of checkpoints, after Megatron's habit: ROOT/iter_0000100/ for each iteration that was saved, and
// ROOT/latest_checkpointed_iteration.txt. Each of them is also a Hugging Face folder. It is written as
// iter_0000100.partial and renamed when all ranks have written their part, so a folder without that suffix is complete;
// training_state.json in it holds the checksum of every other file.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace farskip {

inline constexpr const char* training_state_name = "training_state.json";

/// "ROOT/iter_0000100"
std::string iteration_folder(const std::string& root, int64_t iteration);
/// Where it is written before it is complete.
std::string partial_folder(const std::string& root, int64_t iteration);

/// What latest_checkpointed_iteration.txt says; -1 where there is none. Throws Error for a file that is not a number.
int64_t latest_iteration(const std::string& root);
/// Iterations of the complete checkpoints up to the latest one, newest first; without a latest one (a run that died
/// before it could name its first), of all.
std::vector<int64_t> checkpoint_iterations(const std::string& root);
/// True for a folder of checkpoints (not for a Hugging Face folder by itself).
bool is_checkpoint_root(const std::string& folder);
/// The newest checkpoint of a folder of checkpoints; any other path as it is.
std::string resolve_model_folder(const std::string& path);

/// training_state.json of a checkpoint. Throws Error where it is missing or not JSON.
nlohmann::json read_training_state(const std::string& folder);
/// Size and SHA-256 of a file, as training_state.json lists them under "files".
nlohmann::json file_record(const std::string& path);
/// What is wrong with a file of a checkpoint, by its record: missing, truncated, altered. Empty: nothing.
std::string file_problem(const std::string& folder, const std::string& name, const nlohmann::json& record);

/// Gives the partial folder its name, in place of an older one, and makes `iteration` the latest. Then removes all but
/// the newest `keep` checkpoints (0: none is removed).
void publish_checkpoint(const std::string& root, int64_t iteration, int64_t keep);
/// Removes what a run that was killed left behind. No other run may be writing there.
void remove_partial_checkpoints(const std::string& root);

}  // namespace farskip
