#include "tokenizer/tiktoken.h"

#include <charconv>
#include <unordered_map>

#include "base/error.h"
#include "base/files.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/vocabulary_file.h"

namespace farskip {
namespace {

constexpr int32_t kNumSpecial = 256;

/// pat_str of tokenization_kimi.py and tokenization_moonshot.py.
constexpr std::string_view kKimiPattern =
    R"([\p{Han}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?)"
    R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Empty where `text` is no base64.
std::string decoded_base64(std::string_view text) {
  std::string bytes;
  if (text.size() % 4 != 0) return "";
  while (text.ends_with('=')) text.remove_suffix(1);
  uint32_t bits = 0;
  int num_bits = 0;
  for (const char c : text) {
    const int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (value < 0) return "";
    bits = (bits << 6 | static_cast<uint32_t>(value)) & 0xFFFFFF;
    num_bits += 6;
    if (num_bits >= 8) bytes += static_cast<char>(bits >> (num_bits -= 8));
  }
  return bytes;
}

/// Tokens as bytes, by rank.
std::vector<std::string> read_ranks(const std::string& path) {
  const std::string text = read_file(path);
  std::vector<std::string> tokens;
  int64_t number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    ++number;
    if (line.empty()) continue;
    const size_t space = line.find(' ');
    const std::string bytes = decoded_base64(line.substr(0, space));
    int64_t rank = -1;
    if (space != std::string_view::npos) {
      const auto [end, status] = std::from_chars(line.data() + space + 1, line.data() + line.size(), rank);
      if (status != std::errc() || end != line.data() + line.size()) rank = -1;
    }
    if (bytes.empty() || rank < 0 || rank > kMaxTokenId)
      fail("{}:{}: \"{}\" is not base64 and a rank", path, number, line);
    if (tokens.size() <= static_cast<size_t>(rank)) tokens.resize(static_cast<size_t>(rank) + 1);
    if (!tokens[static_cast<size_t>(rank)].empty()) fail("{}:{}: the rank {} stands there twice", path, number, rank);
    tokens[static_cast<size_t>(rank)] = bytes;
  }
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    if (tokens[rank].empty()) fail("{}: no token has the rank {}", path, rank);
  }
  if (tokens.empty()) fail("{}: no token in it", path);
  return tokens;
}

/// tiktoken merges any two neighbours whose bytes together are a token, the lowest rank first: a merge for each way to
/// cut a token into two tokens.
BpeParts with_merges(const std::vector<std::string>& ranks) {
  BpeParts parts;
  const TokenMap ids(ranks);
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const std::string_view bytes = ranks[rank];
    for (size_t cut = 1; cut < bytes.size(); ++cut) {
      const int32_t left = ids.find(bytes.substr(0, cut)), right = left < 0 ? -1 : ids.find(bytes.substr(cut));
      if (right >= 0) parts.merges.push_back({left, right, static_cast<int32_t>(rank)});
    }
  }
  const ByteAlphabet alphabet;
  for (const auto& bytes : ranks) parts.tokens.push_back(alphabet.spell(bytes));
  parts.ignore_merges = true;
  return parts;
}

}  // namespace

std::unique_ptr<Tokenizer> load_tiktoken(const std::string& path, TokenizerConfig config) {
  if (config.tokenizer_class != "TikTokenTokenizer") {
    fail(
        "{}: the pattern of a tiktoken vocabulary is known only for tokenizer_class TikTokenTokenizer (Kimi, "
        "Moonlight) in "
        "tokenizer_config.json beside it, not for \"{}\"",
        path, config.tokenizer_class);
  }
  const std::vector<std::string> ranks = read_ranks(path);
  const auto num_ranks = static_cast<int32_t>(ranks.size());
  BpeTokenizerParts parts;
  parts.model = with_merges(ranks);
  parts.pre_tokenization = byte_level_pre_tokenization(kKimiPattern);
  std::unordered_map<int32_t, AddedToken> named;
  for (const AddedToken& token : config.added_tokens) {
    if (token.id < num_ranks || token.id >= num_ranks + kNumSpecial) {
      fail("{}: added_tokens_decoder names the id {} ({}); special ids are {} to {}", config.path, token.id,
           token.content, num_ranks, num_ranks + kNumSpecial - 1);
    }
    named[token.id] = token;
  }
  for (int32_t id = num_ranks; id < num_ranks + kNumSpecial; ++id) {
    const auto found = named.find(id);
    parts.added_tokens.push_back(
        {id, found == named.end() ? fmt::format("<|reserved_token_{}|>", id) : found->second.content, true});
  }
  return std::make_unique<BpeTokenizer>(std::move(parts), std::move(config), "tiktoken vocabulary of " + path, path);
}

}  // namespace farskip
