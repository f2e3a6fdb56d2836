#include "train/train_data.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <sstream>

#include "base/error.h"
#include "data/datasets.h"
#include "data/vocabulary_record.h"

namespace farskip {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

}  // namespace

TrainData TrainData::open(const TrainConfig& config, int64_t vocab_size) {
  if (config.data_path.empty() && config.train_data_path.empty()) {
    fail(
        "data_path is not set; make a data set with `farskip prepare TEXT -o PREFIX` and give "
        "data_path=PREFIX_text_document");
  }
  DataOptions options;
  options.data_path = words_of(config.data_path);
  options.train_data_path = words_of(config.train_data_path);
  options.valid_data_path = words_of(config.valid_data_path);
  options.split = config.split;
  options.data_cache_path = config.data_cache_path;
  options.seq_length = config.seq_length;
  options.seed = static_cast<uint64_t>(config.seed);
  options.vocab_size = vocab_size;
  options.sample.eod_mask_loss = config.eod_mask_loss;
  options.sample.reset_position_ids = config.reset_position_ids;
  options.sample.reset_attention_mask = config.reset_attention_mask;
  options.verify_checksums = config.verify_data;
  options.train.num_samples = config.train_iters * config.global_batch_size;
  options.valid.wanted = config.eval_iters > 0;
  options.test.wanted = false;
  TrainData result;
  result.masked = config.eod_mask_loss;
  std::vector<std::string> prefixes;
  for (const Blend& blend : part_blends(options).parts) {
    for (const auto& prefix : blend.prefixes) {
      prefixes.push_back(prefix);
      const std::string mask = target_mask_prefix(prefix);
      if (!mask.empty() && std::filesystem::exists(mask + ".idx")) result.masked = true;
    }
  }
  const Datasets datasets = open_datasets(options);
  result.vocabulary = common_vocabulary(prefixes);
  result.train = datasets.train;
  if (!result.train) {
    fail("{}: the train part has no text with split = {}; seq_length={} needs at least {} tokens",
         config.data_path.empty() ? config.train_data_path : config.data_path, config.split, config.seq_length,
         config.seq_length + 1);
  }
  result.valid = datasets.valid;
  return result;
}

SampleSource train_samples(const TrainData& data) {
  SampleSource samples = samples_of(data.train, data.masked);
  return data.train_targets ? with_targets(std::move(samples), data.train_targets) : samples;
}

SampleSource valid_samples(const TrainData& data) {
  SampleSource samples = samples_of(data.valid, data.masked);
  return data.valid_targets ? with_targets(std::move(samples), data.valid_targets) : samples;
}

int64_t num_evaluated(const TrainConfig& config, const TrainData& data) {
  return data.valid ? std::min(data.valid->size(), config.eval_iters * config.global_batch_size) : 0;
}

TrainData with_cache(const TrainConfig& config, TrainData data, RankContext& context) {
  const std::string& folder = config.distill.teacher_cache;
  if (folder.empty()) return data;
  fill_cache(config, context, samples_of(data.train, data.masked), config.train_iters * config.global_batch_size,
             "train");
  data.train_targets = std::make_shared<const CachedTargets>(folder, "train");
  if (!data.valid) return data;
  fill_cache(config, context, samples_of(data.valid, data.masked), num_evaluated(config, data), "valid");
  data.valid_targets = std::make_shared<const CachedTargets>(folder, "valid");
  return data;
}

SampleSource samples_of(std::shared_ptr<const SampleDataset> dataset, bool masked) {
  return [dataset = std::move(dataset), masked](int64_t i) {
    Sample sample = dataset->sample(i);
    TrainSample result(std::move(sample.tokens));
    if (masked) result.loss_mask = std::move(sample.loss_mask);
    if (sample.cu_seqlens.size() > 2) {
      result.position_ids = std::move(sample.position_ids);
      result.cu_seqlens = std::move(sample.cu_seqlens);
    }
    return result;
  };
}

}  // namespace farskip
