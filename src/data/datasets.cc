#include "data/datasets.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "data/vocabulary_record.h"

namespace farskip {
namespace {

constexpr std::array<const char*, 3> kPartNames = {"train", "valid", "test"};

std::vector<std::string> read_words(const std::string& path) {
  std::istringstream words(read_file(path));
  return {std::istream_iterator<std::string>(words), {}};
}

std::array<std::vector<std::string>, 3> read_per_split(const std::string& path) {
  std::array<std::vector<std::string>, 3> lists;
  try {
    const nlohmann::json parts = nlohmann::json::parse(read_file(path));
    for (const auto& [name, list] : parts.items()) {
      const auto part = std::find(kPartNames.begin(), kPartNames.end(), name);
      if (part == kPartNames.end()) fail("{}: unknown part \"{}\"; known are train, valid, test", path, name);
      for (const auto& entry : list) {
        lists[static_cast<size_t>(part - kPartNames.begin())].push_back(entry.is_string() ? entry.get<std::string>()
                                                                                          : entry.dump());
      }
    }
  } catch (const nlohmann::json::exception& error) {
    fail("{}: not the JSON expected, {{\"train\": [...], \"valid\": [...], \"test\": [...]}} ({})", path, error.what());
  }
  return lists;
}

/// Opens every prefix once, as parts and blends share them.
class FilePool {
 public:
  explicit FilePool(bool verify) : verify_(verify) {}
  const DataFiles& open(const std::string& prefix) {
    const auto found = files_.find(prefix);
    if (found != files_.end()) return found->second;
    return files_.emplace(prefix, DataFiles::open(prefix, verify_)).first->second;
  }

 private:
  bool verify_;
  std::map<std::string, DataFiles> files_;
};

/// Documents are told apart by the token that ends them.
void check_ends(const IndexedDataset& text, int32_t end) {
  const int64_t last = text.document_bound(1) - 1, length = text.sequence_length(last);
  int32_t token = -1;
  if (length > 0) text.read(last, length - 1, {&token, 1});
  if (token == end) return;
  fail(
      "{}: its first document ends with token {} and not with {}, the end of a document, so reset_attention_mask could "
      "not tell documents apart; prepare the text without --no-append-eod, or leave reset_attention_mask out",
      text.prefix(), token, end);
}

class PartBuilder {
 public:
  PartBuilder(const DataOptions& options, const PartBlends& blends, FilePool& pool)
      : options_(options), blends_(blends), pool_(pool) {}

  std::shared_ptr<const SampleDataset> build(size_t part, const PartOptions& use) {
    const Blend& blend = blends_.parts[part];
    if (!use.wanted || blend.prefixes.empty()) return nullptr;
    std::vector<SequenceRange> ranges;
    for (const std::string& prefix : blend.prefixes) ranges.push_back(range_of(part, prefix));
    if (std::all_of(ranges.begin(), ranges.end(), [](const auto& range) { return range.size() == 0; })) return nullptr;
    GptDatasetOptions gpt;
    gpt.seq_length = options_.seq_length;
    gpt.num_samples = use.num_samples;
    gpt.seed = options_.seed;
    gpt.shuffle = use.shuffle;
    gpt.vocab_size = options_.vocab_size;
    gpt.name = kPartNames[part];
    gpt.data_cache_path = options_.data_cache_path;
    gpt.sample = options_.sample;
    if (blend.prefixes.size() == 1) return make(blend.prefixes[0], ranges[0], gpt);

    BlendIndex index = make_index(blend, ranges, gpt);
    std::vector<std::shared_ptr<const SampleDataset>> datasets;
    for (size_t d = 0; d < ranges.size(); ++d) {
      gpt.num_samples = use.num_samples == 0 ? 0 : index.counts()[d];
      datasets.push_back(index.counts()[d] == 0 ? nullptr : make(blend.prefixes[d], ranges[d], gpt));
    }
    return std::make_shared<const BlendedDataset>(std::move(index), std::move(datasets));
  }

 private:
  SequenceRange range_of(size_t part, const std::string& prefix) {
    const int64_t num_sequences = pool_.open(prefix).text->num_sequences();
    if (!blends_.cut_by_split) return {0, num_sequences};
    const DatasetSplit split = split_sequences(options_.split, num_sequences);
    return std::array{split.train, split.valid, split.test}[part];
  }

  std::shared_ptr<const SampleDataset> make(const std::string& prefix, SequenceRange range, GptDatasetOptions gpt) {
    if (std::filesystem::exists(vocabulary_record_path(prefix))) {
      gpt.sample.eod_token = read_vocabulary_record(prefix).end_of_document;
    }
    if (gpt.sample.reset_attention_mask) check_ends(*pool_.open(prefix).text, gpt.sample.eod_token);
    gpt.target_mask = pool_.open(prefix).target_mask;
    return std::make_shared<const GptDataset>(pool_.open(prefix).text, range, gpt);
  }

  BlendIndex make_index(const Blend& blend, const std::vector<SequenceRange>& ranges, const GptDatasetOptions& gpt) {
    const std::string folder = gpt.data_cache_path.empty() ? index_folder(blend.prefixes.front()) : gpt.data_cache_path;
    const std::string name = gpt.name + "-blend";
    if (gpt.num_samples > 0 && !blend.weights.empty()) {
      return BlendIndex::weighted(blend.weights, gpt.num_samples, folder, name);
    }
    std::vector<int64_t> sizes;
    for (size_t d = 0; d < ranges.size(); ++d) {
      const int64_t tokens = pool_.open(blend.prefixes[d]).text->num_tokens(ranges[d]);
      sizes.push_back(tokens == 0 ? 0 : samples_in_one_pass(tokens, gpt.seq_length));
    }
    if (std::all_of(sizes.begin(), sizes.end(), [](int64_t size) { return size == 0; })) {
      fail(
          "the {} part of no data set of the blend has the {} tokens of one sample; shorten seq_length or prepare more "
          "text",
          gpt.name, gpt.seq_length + 1);
    }
    if (gpt.num_samples == 0) return BlendIndex::exhaustive(sizes, folder, name);
    return BlendIndex::weighted({sizes.begin(), sizes.end()}, gpt.num_samples, folder, name);
  }

  const DataOptions& options_;
  const PartBlends& blends_;
  FilePool& pool_;
};

}  // namespace

std::string target_mask_prefix(const std::string& data_prefix) {
  constexpr std::string_view kText = "_text_document";
  if (!data_prefix.ends_with(kText)) return "";
  return data_prefix.substr(0, data_prefix.size() - kText.size()) + "_mask_document";
}

DataFiles DataFiles::open(const std::string& prefix, bool verify) {
  const auto open_one = [verify](const std::string& name) {
    if (verify) verify_checksums(name);
    return std::make_shared<const IndexedDataset>(name);
  };
  DataFiles files;
  files.text = open_one(prefix);
  const std::string mask = target_mask_prefix(prefix);
  if (!mask.empty() && std::filesystem::exists(index_path(mask))) files.target_mask = open_one(mask);
  return files;
}

PartBlends part_blends(const DataOptions& options) {
  std::array<std::vector<std::string>, 3> lists = {options.train_data_path, options.valid_data_path,
                                                   options.test_data_path};
  const bool per_part = std::any_of(lists.begin(), lists.end(), [](const auto& list) { return !list.empty(); });
  const int given = int{!options.data_path.empty()} + int{per_part} + int{!options.data_args_path.empty()} +
                    int{!options.per_split_data_args_path.empty()};
  if (given == 0) {
    fail(
        "data_path is not set; make a data set with `farskip prepare TEXT -o PREFIX` and give "
        "data_path=PREFIX_text_document");
  }
  if (given > 1) {
    fail(
        "{} settings say where the data is; give one of data_path, train_data_path (with valid_data_path and "
        "test_data_path), data_args_path and per_split_data_args_path",
        given);
  }
  PartBlends blends;
  if (!options.per_split_data_args_path.empty()) lists = read_per_split(options.per_split_data_args_path);
  blends.cut_by_split = !options.data_path.empty() || !options.data_args_path.empty();
  if (blends.cut_by_split) {
    lists.fill(options.data_path.empty() ? read_words(options.data_args_path) : options.data_path);
  }
  for (size_t part = 0; part < 3; ++part) {
    if (blends.cut_by_split || !lists[part].empty()) blends.parts[part] = parse_blend(lists[part]);
  }
  return blends;
}

Datasets open_datasets(const DataOptions& options) {
  if (options.seq_length < 1) fail("seq_length={}: a sample needs at least one token", options.seq_length);
  const PartBlends blends = part_blends(options);
  FilePool pool(options.verify_checksums);
  PartBuilder builder(options, blends, pool);
  return {builder.build(0, options.train), builder.build(1, options.valid), builder.build(2, options.test)};
}

}  // namespace farskip
