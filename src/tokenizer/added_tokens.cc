#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace farskip {
namespace {

/// Where the last character of `text` begins.
size_t last_char(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer* normalizer)
    : tokens_(std::move(tokens)), word_(R"(\A\w)") {
  for (auto& nodes : nodes_) nodes.resize(1);
  MatchScratch scratch;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    const auto index = static_cast<int32_t>(i);
    by_id_[token.id] = index;
    by_content_[token.content] = token.id;
    max_id_ = std::max(max_id_, token.id);
    std::string content = token.content;
    if (token.normalized && normalizer != nullptr) normalizer->apply(content, scratch);
    if (!content.empty()) add(content, token.normalized, index);
  }
}

void AddedTokens::add(std::string_view content, bool normalized, int32_t token) {
  auto& nodes = nodes_[normalized];
  int32_t at = 0;
  for (const char c : content) {
    const auto [found, is_new] = nodes[static_cast<size_t>(at)].next.try_emplace(static_cast<unsigned char>(c),
                                                                                 static_cast<int32_t>(nodes.size()));
    at = found->second;
    if (is_new) nodes.emplace_back();
  }
  if (nodes[static_cast<size_t>(at)].token < 0) nodes[static_cast<size_t>(at)].token = token;
}

int32_t AddedTokens::match(std::string_view text, bool normalized, size_t& length) const {
  const auto& nodes = nodes_[normalized];
  int32_t best = -1;
  const Node* node = &nodes[0];
  for (size_t i = 0; i < text.size(); ++i) {
    const auto found = node->next.find(static_cast<unsigned char>(text[i]));
    if (found == node->next.end()) break;
    node = &nodes[static_cast<size_t>(found->second)];
    if (node->token >= 0) best = node->token, length = i + 1;
  }
  return best;
}

bool AddedTokens::stands_alone(std::string_view text, size_t begin, size_t end, MatchScratch& scratch) const {
  size_t from, to;
  const bool word_before = begin > 0 && word_.find(text.substr(last_char(text.substr(0, begin))), 0, scratch, from, to);
  return !word_before && !(end < text.size() && word_.find(text.substr(end), 0, scratch, from, to));
}

void AddedTokens::cut(std::string_view text, bool normalized, MatchScratch& scratch, const Use& use) const {
  const auto& first = nodes_[normalized][0].next;
  size_t done = 0;
  for (size_t at = 0; at < text.size() && !first.empty();) {
    if (first.size() == 1) {  // most vocabularies' tokens all begin with <
      at = text.find(static_cast<char>(first.begin()->first), at);
      if (at == std::string_view::npos) break;
    }
    size_t length = 0;
    const int32_t index = match(text.substr(at), normalized, length);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at, end = at + length;
    at = end;
    if (token.single_word && !stands_alone(text, begin, end, scratch)) continue;
    if (token.lstrip) {
      while (begin > done) {
        const size_t previous = last_char(text.substr(0, begin));
        if (!is_white_space(first_utf8_char(text.substr(previous)).code)) break;
        begin = std::max(previous, done);
      }
    }
    if (token.rstrip) {
      while (end < text.size()) {
        const Utf8Char c = first_utf8_char(text.substr(end));
        if (!is_white_space(c.code)) break;
        end += static_cast<size_t>(c.num_bytes);
      }
      at = std::max(at, end);
    }
    if (begin > done) use(text.substr(done, begin - done), -1);
    use(text.substr(begin, end - begin), token.id);
    done = end;
  }
  if (done < text.size()) use(text.substr(done), -1);
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[static_cast<size_t>(found->second)];
}

int32_t AddedTokens::id_of(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? -1 : found->second;
}

}  // namespace farskip
