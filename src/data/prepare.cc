#include "data/prepare.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <system_error>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "data/byte_tokenizer.h"
#include "data/indexed_dataset.h"

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

}  // namespace

std::string PrepareSummary::text() const {
  const double mean = static_cast<double>(num_tokens) / static_cast<double>(num_documents);
  std::string lines = fmt::format("{}.bin, {}.idx\n", data_prefix, data_prefix);
  lines += fmt::format("  documents  {} (mean {:.0f} tokens, longest {})", num_documents, mean, longest_document);
  if (num_skipped > 0) lines += fmt::format("; {} of white space only left out", num_skipped);
  lines += fmt::format("\n  tokens     {} (one per byte, {} ids)\n", num_tokens, ByteTokenizer::kNumIds);
  lines += fmt::format("  bytes      {} read, {} written in {}\n", format_bytes(num_input_bytes),
                       format_bytes(num_output_bytes), format_duration(seconds));
  lines += fmt::format("  checksums  {}.sha256\n", data_prefix);
  return lines;
}

PrepareSummary prepare(const PrepareOptions& options) {
  if (options.output_prefix.empty()) fail("no output prefix; name where the data set shall lie, such as data/kjv");
  const double start = monotonic_seconds();
  PrepareSummary summary;
  summary.data_prefix = options.output_prefix + "_text_document";
  const int64_t total = total_bytes(options.inputs);
  create_parent_folders(summary.data_prefix);
  IndexedDatasetWriter writer(summary.data_prefix, token_type_for(ByteTokenizer::kNumIds));
  Progress progress({.what = "prepare", .total = total, .out = options.progress});

  std::vector<int32_t> tokens;
  const auto emit = [&](std::string_view document) {
    if (is_blank(document)) {
      ++summary.num_skipped;
      return;
    }
    tokens.clear();
    ByteTokenizer::encode(document, tokens);
    if (options.append_eod) tokens.push_back(ByteTokenizer::kEndOfDocument);
    writer.add_document(tokens);
    summary.longest_document = std::max(summary.longest_document, static_cast<int64_t>(tokens.size()));
  };
  for (const std::string& input : options.inputs) {
    const std::unique_ptr<DocumentSplitter> splitter = make_splitter(options.documents, input, emit);
    LineReader reader(input);
    for (std::string_view line; reader.next(line);) {
      summary.num_input_bytes += static_cast<int64_t>(line.size());
      splitter->add_line(line);
      progress.update(summary.num_input_bytes);
    }
    splitter->finish();
  }
  if (writer.num_documents() == 0) {
    fail("{} read from {} input(s), but there is no document in it (nothing, or only white space)",
         format_bytes(summary.num_input_bytes), options.inputs.size());
  }
  summary.num_documents = writer.num_documents();
  summary.num_tokens = writer.num_tokens();
  summary.checksums = writer.commit();
  summary.num_output_bytes = static_cast<int64_t>(fs::file_size(tokens_path(summary.data_prefix)) +
                                                  fs::file_size(index_path(summary.data_prefix)));
  summary.seconds = monotonic_seconds() - start;
  return summary;
}

}  // namespace farskip
