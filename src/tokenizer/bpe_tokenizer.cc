#include "tokenizer/bpe_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "tokenizer/utf8.h"

namespace farskip {
namespace {

BpeParts with_byte_level(BpeParts parts, bool byte_level) {
  parts.byte_level = byte_level;
  return parts;
}

}  // namespace

struct BpeTokenizer::Scratch {
  MatchScratch match;
  BpeScratch bpe;
};

/// A Scratch for the time of one call.
class BpeTokenizer::Lease {
 public:
  explicit Lease(const BpeTokenizer& owner) : owner_(owner) {
    const std::lock_guard lock(owner_.mutex_);
    if (!owner_.idle_.empty()) {
      scratch_ = std::move(owner_.idle_.back());
      owner_.idle_.pop_back();
    }
  }
  ~Lease() {
    if (!scratch_) return;
    const std::lock_guard lock(owner_.mutex_);
    owner_.idle_.push_back(std::move(scratch_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Scratch& operator*() {
    if (!scratch_) scratch_ = std::make_unique<Scratch>();
    return *scratch_;
  }

 private:
  const BpeTokenizer& owner_;
  std::unique_ptr<Scratch> scratch_;
};

BpeTokenizer::BpeTokenizer(BpeTokenizerParts parts, TokenizerConfig config, std::string description,
                           const std::string& where)
    : Tokenizer(std::move(config), std::move(description)),
      normalizer_(std::move(parts.normalizer)),
      pre_tokenization_(std::move(parts.pre_tokenization)),
      model_(with_byte_level(std::move(parts.model), pre_tokenization_.byte_level), where),
      added_(std::move(parts.added_tokens), normalizer_.get()),
      decoder_(std::move(parts.decoder)),
      prefix_(std::move(parts.prefix)),
      suffix_(std::move(parts.suffix)) {}

BpeTokenizer::~BpeTokenizer() = default;

void BpeTokenizer::encode(std::string_view text, std::vector<int32_t>& ids, bool add_special) const {
  std::string repaired;
  if (!is_utf8(text)) text = repaired = replace_invalid_utf8(text);
  Lease lease(*this);
  Scratch& scratch = *lease;
  if (add_special) ids.insert(ids.end(), prefix_.begin(), prefix_.end());
  added_.cut(text, false, scratch.match, [&](std::string_view part, int32_t id) {
    if (id >= 0) {
      ids.push_back(id);
    } else {
      encode_part(part, part.data() == text.data(), scratch, ids);
    }
  });
  if (add_special) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
}

void BpeTokenizer::encode_part(std::string_view part, bool is_first, Scratch& scratch,
                               std::vector<int32_t>& ids) const {
  std::string normalized;
  if (normalizer_) {
    normalized = part;
    normalizer_->apply(normalized, scratch.match);
    part = normalized;
  }
  if (!added_.any(true)) {
    encode_pieces(part, is_first, scratch, ids);
    return;
  }
  added_.cut(part, true, scratch.match, [&](std::string_view text, int32_t id) {
    if (id >= 0) {
      ids.push_back(id);
    } else {
      encode_pieces(text, is_first && text.data() == part.data(), scratch, ids);
    }
  });
}

void BpeTokenizer::encode_pieces(std::string_view text, bool is_first, Scratch& scratch,
                                 std::vector<int32_t>& ids) const {
  struct ToModel : PieceSink {
    ToModel(const Bpe& model, BpeScratch& scratch, std::vector<int32_t>& ids)
        : model(model), scratch(scratch), ids(ids) {}
    void add(std::string_view piece) override { model.encode(piece, scratch, ids); }
    const Bpe& model;
    BpeScratch& scratch;
    std::vector<int32_t>& ids;
  };
  if (text.empty()) return;
  ToModel sink(model_, scratch.bpe, ids);
  if (pre_tokenization_.cut) {
    pre_tokenization_.cut->cut(text, is_first, scratch.match, sink);
  } else {
    sink.add(text);
  }
}

std::string_view BpeTokenizer::spelling(int32_t id) const {
  if (const AddedToken* added = added_.find(id)) return added->content;
  return id >= 0 && static_cast<size_t>(id) < model_.tokens().size()
             ? std::string_view(model_.tokens()[static_cast<size_t>(id)])
             : std::string_view();
}

std::string BpeTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  std::vector<std::string_view> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const std::string_view token = spelling(id);
    if (!token.empty() && !(skip_special && is_special(id))) tokens.push_back(token);
  }
  return decoder_.decode(tokens);
}

std::string BpeTokenizer::bytes_of(int32_t id, bool is_first) const { return decoder_.bytes(spelling(id), is_first); }

int64_t BpeTokenizer::num_ids() const {
  return std::max<int64_t>(static_cast<int64_t>(model_.tokens().size()), added_.max_id() + 1);
}

int32_t BpeTokenizer::id_of(std::string_view token) const {
  const int32_t id = added_.id_of(token);
  return id >= 0 ? id : model_.ids().find(token);
}

std::string BpeTokenizer::token_of(int32_t id) const { return std::string(spelling(id)); }

bool BpeTokenizer::is_special(int32_t id) const {
  const AddedToken* added = added_.find(id);
  return added != nullptr && added->special;
}

}  // namespace farskip
