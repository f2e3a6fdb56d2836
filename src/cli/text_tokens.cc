#include "cli/text_tokens.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "cli/model_text.h"
#include "data/byte_tokenizer.h"
#include "data/indexed_dataset.h"
#include "tokenizer/tokenizer.h"

namespace farskip::cli {
namespace {

namespace fs = std::filesystem;

std::vector<int32_t> prepared_tokens(const std::string& prefix, int64_t max_tokens) {
  const IndexedDataset data(prefix);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < data.num_sequences() && static_cast<int64_t>(tokens.size()) < max_tokens; ++i) {
    const int64_t left = max_tokens - static_cast<int64_t>(tokens.size());
    const auto length = static_cast<size_t>(std::min(data.sequence_length(i), left));
    tokens.resize(tokens.size() + length);
    data.read(i, 0, std::span(tokens).last(length));
  }
  return tokens;
}

}  // namespace

std::vector<int32_t> text_tokens(const std::string& text, const std::string& folder, const ModelConfig& model,
                                 int64_t max_tokens) {
  const fs::path path(text);
  const bool part = path.extension() == ".idx" || path.extension() == ".bin";
  const std::string prefix = part ? fs::path(path).replace_extension() : path;
  if (fs::exists(index_path(prefix))) return prepared_tokens(prefix, max_tokens);
  if (has_tokenizer(folder)) {
    auto tokens = load_tokenizer(folder)->encode(read_file(text));
    tokens.resize(std::min<size_t>(tokens.size(), static_cast<size_t>(max_tokens)));
    return tokens;
  }
  check_byte_model(text, folder, model);
  auto tokens = ByteTokenizer::encode(read_file(text));
  tokens.resize(std::min<size_t>(tokens.size(), static_cast<size_t>(max_tokens)));
  return tokens;
}

}  // namespace farskip::cli
