#include "data/tokenize.h"

#include "base/error.h"
#include "data/byte_tokenizer.h"

namespace farskip {
namespace {

/// Where each id ends in `text`; empty where the ids do not spell the very text.
std::vector<size_t> ends_of(const Tokenizer& tokenizer, std::string_view text, std::span<const int32_t> ids) {
  std::vector<size_t> ends;
  size_t at = 0;
  for (const int32_t id : ids) {
    const std::string bytes = tokenizer.bytes_of(id, at == 0);
    if (bytes.empty() || text.substr(at, bytes.size()) != bytes) return {};
    ends.push_back(at += bytes.size());
  }
  return at == text.size() ? ends : std::vector<size_t>();
}

}  // namespace

DocumentTokenizer DocumentTokenizer::open(const std::string& path, const std::string& end_of_document_token) {
  if (path.empty()) {
    if (!end_of_document_token.empty()) fail("--end-of-document names a token of a --tokenizer; bytes have their own");
    return {nullptr, ByteTokenizer::kEndOfDocument};
  }
  DocumentTokenizer result;
  result.tokenizer = load_tokenizer(path);
  const Tokenizer& tokenizer = *result.tokenizer;
  result.end_of_document = end_of_document_token.empty() ? tokenizer.eos() : tokenizer.id_of(end_of_document_token);
  if (result.end_of_document < 0 && !end_of_document_token.empty()) {
    fail("--end-of-document {}: no token of the {}", end_of_document_token, tokenizer.description());
  }
  if (result.end_of_document < 0) {
    fail(
        "the {} names no eos_token (tokenizer_config.json); name the token that ends documents: --end-of-document "
        "TOKEN",
        tokenizer.description());
  }
  return result;
}

int64_t DocumentTokenizer::num_ids() const { return tokenizer ? tokenizer->num_ids() : ByteTokenizer::kNumIds; }

std::string DocumentTokenizer::description() const { return tokenizer ? tokenizer->description() : "bytes"; }

void DocumentTokenizer::encode(const Document& document, std::vector<int32_t>& ids,
                               std::vector<int32_t>& targets) const {
  const std::string_view text = document.text;
  const std::string& wanted = document.targets;
  if (!tokenizer) {
    ByteTokenizer::encode(text, ids);
    targets.insert(targets.end(), wanted.begin(), wanted.end());
    return;
  }
  if (wanted.empty()) {
    tokenizer->encode(text, ids);
    return;
  }
  const std::vector<int32_t> whole = tokenizer->encode(text);
  if (const auto ends = ends_of(*tokenizer, text, whole); !ends.empty()) {
    ids.insert(ids.end(), whole.begin(), whole.end());
    for (const size_t end : ends) targets.push_back(wanted[end - 1]);
    return;
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(wanted.find_first_not_of(wanted[begin], begin), text.size());
    const size_t before = ids.size();
    tokenizer->encode(text.substr(begin, end - begin), ids);
    targets.insert(targets.end(), ids.size() - before, wanted[begin]);
    begin = end;
  }
}

}  // namespace farskip
