#include "data/prepare.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "data/chat.h"
#include "data/datasets.h"
#include "data/ordered_pipeline.h"
#include "data/tokenize.h"
#include "data/vocabulary_record.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

/// Lines of a file or of standard input ("-").
class LineReader {
 public:
  explicit LineReader(const std::string& path)
      : path_(path), file_(path == "-" ? stdin : std::fopen(path.c_str(), "rb")) {
    if (file_ == nullptr) fail_io("open");
  }
  ~LineReader() {
    std::free(line_);
    if (file_ != nullptr && file_ != stdin) std::fclose(file_);
  }
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  /// The next line with its end, false where there is none. Valid until the next call.
  bool next(std::string_view& line) {
    errno = 0;
    const ssize_t length = ::getline(&line_, &capacity_, file_);
    if (length < 0) {
      if (std::ferror(file_) != 0) fail_io("read");
      if (errno == ENOMEM)
        fail("cannot read {}: a line of more than {} does not fit in memory", path_,
             format_bytes(static_cast<int64_t>(capacity_)));
      return false;
    }
    line = {line_, static_cast<size_t>(length)};
    return true;
  }

 private:
  [[noreturn]] void fail_io(const char* action) const {
    fail("cannot {} {}: {}", action, path_, std::generic_category().message(errno));
  }

  std::string path_;
  std::FILE* file_;
  char* line_ = nullptr;
  size_t capacity_ = 0;
};

/// Bytes of all inputs, or -1 where one is a pipe. Throws for inputs that are not there, before any work is done.
int64_t total_bytes(const std::vector<std::string>& inputs) {
  if (inputs.empty()) fail("no input; name text files or - for standard input");
  int64_t total = 0;
  bool known = true;
  for (const std::string& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (input == "-") {
      known = false;
    } else if (!fs::exists(status)) {
      fail("input {} does not exist", input);
    } else if (fs::is_directory(status)) {
      fail("input {} is a folder; name the files in it", input);
    } else if (fs::is_regular_file(status)) {
      total += static_cast<int64_t>(fs::file_size(input));
    } else {
      known = false;
    }
  }
  return known ? total : -1;
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos; }

/// Records of one input, one after another in `text`.
struct RecordBatch {
  size_t input = 0;  ///< index into the inputs
  std::string text;
  std::vector<size_t> ends;    ///< where each record ends in `text`
  std::vector<int64_t> lines;  ///< where each stood in the input
  int64_t num_bytes = 0;       ///< read for it
};

/// The documents of a batch.
struct TokenBatch {
  std::vector<int32_t> tokens;
  std::vector<int32_t> targets;  ///< as long as `tokens`, only for chats
  std::vector<size_t> ends;      ///< where each document ends in `tokens`
  int64_t num_skipped = 0;
  int64_t num_bytes = 0;
};

/// All inputs as batches.
class BatchReader {
 public:
  explicit BatchReader(const PrepareOptions& options) : options_(options) {}

  std::optional<RecordBatch> next() {
    batch_ = {};
    while (batch_.num_bytes < kBatchBytes) {
      if (!reader_ && !open_input()) break;
      std::string_view line;
      if (reader_->next(line)) {
        batch_.num_bytes += static_cast<int64_t>(line.size());
        cutter_->add_line(line);
        continue;
      }
      cutter_->finish();
      reader_.reset();
      break;  // a batch is of one input
    }
    if (!reader_ && batch_.num_bytes == 0 && next_input_ == options_.inputs.size()) return std::nullopt;
    return std::move(batch_);
  }

 private:
  static constexpr int64_t kBatchBytes = int64_t{1} << 20;

  bool open_input() {
    if (next_input_ == options_.inputs.size()) return false;
    const std::string& input = options_.inputs[next_input_];
    cutter_ = make_cutter(options_.documents, input, [this](std::string_view record, int64_t line) {
      batch_.text += record;
      batch_.ends.push_back(batch_.text.size());
      batch_.lines.push_back(line);
    });
    reader_.emplace(input);
    batch_.input = next_input_++;
    return true;
  }

  const PrepareOptions& options_;
  size_t next_input_ = 0;
  std::optional<LineReader> reader_;
  std::unique_ptr<RecordCutter> cutter_;
  RecordBatch batch_;
};

TokenBatch tokenize(const PrepareOptions& options, const DocumentTokenizer& tokenizer, const RecordBatch& batch) {
  TokenBatch result;
  result.num_bytes = batch.num_bytes;
  result.tokens.reserve(batch.text.size() + batch.ends.size());
  const bool has_targets = options.documents.format == TextFormat::chat;
  size_t begin = 0;
  for (size_t i = 0; i < batch.ends.size(); begin = batch.ends[i++]) {
    const std::string_view record = std::string_view(batch.text).substr(begin, batch.ends[i] - begin);
    const Document document = parse_record(options.documents, options.inputs[batch.input], record, batch.lines[i]);
    if (is_blank(document.text)) {
      ++result.num_skipped;
      continue;
    }
    tokenizer.encode(document, result.tokens, result.targets);
    const bool has_ended = has_targets && result.tokens.back() == tokenizer.end_of_document;
    if (options.append_eod && !has_ended) result.tokens.push_back(tokenizer.end_of_document);
    if (has_targets) result.targets.resize(result.tokens.size(), 0);
    result.ends.push_back(result.tokens.size());
  }
  return result;
}

/// The data sets being written: text, and targets for chats.
class Output {
 public:
  Output(const PrepareOptions& options, const DocumentTokenizer& tokenizer, const std::string& data_prefix)
      : tokenizer_(tokenizer),
        path_(options.tokenizer),
        text_(data_prefix, token_type_for(tokenizer.num_ids())),
        mask_prefix_(target_mask_prefix(data_prefix)) {
    if (options.documents.format == TextFormat::chat) mask_.emplace(mask_prefix_, TokenType::uint8);
  }

  void add(const TokenBatch& batch, PrepareSummary& summary) {
    summary.num_skipped += batch.num_skipped;
    summary.num_input_bytes += batch.num_bytes;
    size_t begin = 0;
    for (const size_t end : batch.ends) {
      text_.add_document(std::span(batch.tokens).subspan(begin, end - begin));
      if (mask_) {
        const auto targets = std::span(batch.targets).subspan(begin, end - begin);
        mask_->add_document(targets);
        summary.num_targets += std::count(targets.begin(), targets.end(), 1);
      }
      summary.longest_document = std::max(summary.longest_document, static_cast<int64_t>(end - begin));
      begin = end;
    }
    summary.num_documents = text_.num_documents();
    summary.num_tokens = text_.num_tokens();
    if (!mask_) summary.num_targets = summary.num_tokens;
  }

  /// Everything is on the disk before the first name changes; an older text goes out of sight before its mask changes.
  void commit(PrepareSummary& summary) {
    summary.checksums = text_.finish();
    if (mask_) summary.checksums += mask_->finish();
    std::optional<VocabularyCopy> vocabulary;
    if (tokenizer_.tokenizer) vocabulary.emplace(summary.data_prefix, path_);
    remove_index(summary.data_prefix);
    if (mask_) {
      mask_->publish();
    } else {
      remove_dataset(mask_prefix_);
    }
    if (vocabulary) {
      vocabulary->publish();
      write_vocabulary_record(summary.data_prefix, {summary.tokenizer, summary.num_ids, tokenizer_.end_of_document});
    } else {
      fs::remove(vocabulary_record_path(summary.data_prefix));
      fs::remove_all(vocabulary_folder(summary.data_prefix));
    }
    text_.publish();
    summary.mask_prefix = mask_ ? mask_prefix_ : "";
  }

 private:
  const DocumentTokenizer& tokenizer_;
  const std::string path_;  ///< of the tokenizer
  IndexedDatasetWriter text_;
  std::string mask_prefix_;
  std::optional<IndexedDatasetWriter> mask_;
};

int64_t bytes_of(const std::string& prefix) {
  return static_cast<int64_t>(fs::file_size(tokens_path(prefix)) + fs::file_size(index_path(prefix)));
}

}  // namespace

std::string PrepareSummary::text() const {
  const double mean = static_cast<double>(num_tokens) / static_cast<double>(num_documents);
  std::string lines = fmt::format("{}.bin, {}.idx\n", data_prefix, data_prefix);
  lines += fmt::format("  documents  {} (mean {:.0f} tokens, longest {})", num_documents, mean, longest_document);
  if (num_skipped > 0) lines += fmt::format("; {} of white space only left out", num_skipped);
  if (tokenizer == "bytes") {
    lines += fmt::format("\n  tokens     {} (one per byte, {} ids)\n", num_tokens, num_ids);
  } else {
    lines += fmt::format("\n  tokens     {} ({:.2f} bytes each, {} ids)\n  tokenizer  {}\n", num_tokens,
                         static_cast<double>(num_input_bytes) / static_cast<double>(num_tokens), num_ids, tokenizer);
  }
  if (!mask_prefix.empty()) {
    lines += fmt::format("  targets    {} ({:.0f} %; {}.bin, .idx)\n", num_targets,
                         100.0 * static_cast<double>(num_targets) / static_cast<double>(num_tokens), mask_prefix);
  }
  lines += fmt::format("  bytes      {} read, {} written in {}\n", format_bytes(num_input_bytes),
                       format_bytes(num_output_bytes), format_duration(seconds));
  lines += fmt::format("  checksums  {}.sha256\n", data_prefix);
  return lines;
}

PrepareSummary prepare(const PrepareOptions& given) {
  PrepareOptions options = given;
  if (options.output_prefix.empty()) fail("no output prefix; name where the data set shall lie, such as data/kjv");
  if (options.workers < 0) fail("workers={}: give the number of threads, or 0 for one per core", options.workers);
  const double start = monotonic_seconds();
  PrepareSummary summary;
  summary.data_prefix = options.output_prefix + "_text_document";
  const int64_t total = total_bytes(options.inputs);
  const DocumentTokenizer tokenizer = DocumentTokenizer::open(options.tokenizer, options.end_of_document);
  summary.tokenizer = tokenizer.description(), summary.num_ids = tokenizer.num_ids();
  if (options.documents.format == TextFormat::chat && tokenizer.tokenizer &&
      !tokenizer.tokenizer->config().chat_template.empty()) {
    const TokenizerConfig& config = tokenizer.tokenizer->config();
    options.documents.chat = std::make_shared<ChatFormat>(
        ChatTemplate::of(config.chat_template, tokenizer.tokenizer->description()), config);
  }
  create_parent_folders(summary.data_prefix);
  Output output(options, tokenizer, summary.data_prefix);
  Progress progress({.what = "prepare", .total = total, .out = options.progress});
  BatchReader reader(options);
  ordered_pipeline<RecordBatch, TokenBatch>(
      [&] { return reader.next(); }, [&](const RecordBatch& batch) { return tokenize(options, tokenizer, batch); },
      [&](const TokenBatch& batch) {
        output.add(batch, summary);
        progress.update(summary.num_input_bytes);
      },
      options.workers > 0 ? options.workers : std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
  if (summary.num_documents == 0) {
    fail("{} read from {} input(s), but there is no document in it (nothing, or only white space)",
         format_bytes(summary.num_input_bytes), options.inputs.size());
  }
  output.commit(summary);
  summary.num_output_bytes = bytes_of(summary.data_prefix);
  if (!summary.mask_prefix.empty()) summary.num_output_bytes += bytes_of(summary.mask_prefix);
  summary.seconds = monotonic_seconds() - start;
  return summary;
}

std::string verify_data(const std::vector<std::string>& prefixes) {
  std::string lines;
  for (const std::string& prefix : prefixes) {
    const DataFiles files = DataFiles::open(prefix, true);
    lines +=
        fmt::format("{}: {} documents, {} tokens{}; files and checksums agree\n", prefix, files.text->num_documents(),
                    files.text->num_tokens(), files.target_mask ? ", with a loss mask" : "");
  }
  return lines;
}

}  // namespace farskip
