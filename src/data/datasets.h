#pragma once
// From a recipe's data settings to the samples of its three parts.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/blend.h"
#include "data/gpt_dataset.h"

namespace farskip {

/// PREFIX_mask_document of PREFIX_text_document: which tokens are targets; empty for other prefixes.
std::string target_mask_prefix(const std::string& data_prefix);

/// An indexed dataset with the mask beside it, if there is one.
struct DataFiles {
  std::shared_ptr<const IndexedDataset> text, target_mask;
  /// Throws Error for damaged files; verify_checksums reads all of them and compares with their .sha256.
  static DataFiles open(const std::string& prefix, bool verify_checksums = false);
};

/// What one part (train, valid, test) is used for.
struct PartOptions {
  int64_t num_samples = 0;  ///< 0: one pass over every data set, whatever the weights
  bool shuffle = true;
  bool wanted = true;
};

/// Names are Megatron's. One of data_path (cut by split), the three *_data_path, data_args_path and
/// per_split_data_args_path says where the data is; see parse_blend for the lists.
struct DataOptions {
  std::vector<std::string> data_path = {};
  std::vector<std::string> train_data_path = {}, valid_data_path = {}, test_data_path = {};
  std::string data_args_path = {};            ///< a file that holds data_path, words apart by white space
  std::string per_split_data_args_path = {};  ///< JSON: {"train": [...], "valid": [...], "test": [...]}
  std::string split = "969,30,1";
  std::string data_cache_path = {};  ///< folder of index files; empty: PREFIX/cache
  int64_t seq_length = 0;
  uint64_t seed = 1234;
  int64_t vocab_size = 0;  ///< 0: not checked
  SampleOptions sample = {};
  bool verify_checksums = false;
  PartOptions train = {}, valid = {.num_samples = 0, .shuffle = false}, test = {.num_samples = 0, .shuffle = false};
};

/// The blends of train, valid and test; with data_path or data_args_path all three are the same.
struct PartBlends {
  bool cut_by_split = false;
  std::array<Blend, 3> parts;  ///< without prefixes where a part has none
};
/// Throws Error where no or several settings say where the data is.
PartBlends part_blends(const DataOptions& options);

/// Null where a part is not wanted or has nothing. Sample i of a part is a function of (data, weights, seed,
/// seq_length, i): neither of num_samples nor of batch sizes or ranks, so training goes on where it stopped from the
/// number of samples consumed alone. Throws Error for data that is not there, damaged, shorter than one sample, or has
/// tokens that vocab_size excludes.
struct Datasets {
  std::shared_ptr<const SampleDataset> train, valid, test;
};
Datasets open_datasets(const DataOptions& options);

}  // namespace farskip
