#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "tokenizer/byte_alphabet.h"
#include "tokenizer/utf8.h"

namespace farskip {
namespace {

constexpr size_t kNumSlots = size_t{1} << 15;  // 2 MiB a thread
constexpr size_t kFew = 48;                    // symbols among which scanning beats a heap

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

uint64_t mixed(uint64_t x) {
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93u;
  x ^= x >> 32;
  x *= 0xd6e8feb86659fd93u;
  return x ^ (x >> 32);
}

/// Of at most 31 bytes, with zeros behind them.
uint64_t hash_of(const std::array<char, 32>& key, size_t num_bytes) {
  uint64_t hash = num_bytes, word;
  for (size_t i = 0; i < num_bytes; i += 8) {
    std::memcpy(&word, key.data() + i, 8);
    hash = (std::rotl(hash, 5) ^ word) * 0x9e3779b97f4a7c15u;
  }
  return mixed(hash);
}

}  // namespace

TokenMap::TokenMap(const std::vector<std::string>& tokens) {
  ids_.reserve(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].empty()) ids_.emplace(tokens[id], static_cast<int32_t>(id));
  }
}

int32_t TokenMap::find(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

BpeScratch::BpeScratch() : slots_(kNumSlots) { static_assert(sizeof(Slot) == 64); }

Bpe::Bpe(BpeParts parts, const std::string& where) : parts_(std::move(parts)), ids_(parts_.tokens) {
  table_.resize(std::bit_ceil(std::max<size_t>(16, parts_.merges.size() * 2)));
  const auto num_tokens = static_cast<int32_t>(parts_.tokens.size());
  for (size_t rank = 0; rank < parts_.merges.size(); ++rank) {
    const auto& merge = parts_.merges[rank];
    for (const int32_t id : {merge.left, merge.right, merge.merged}) {
      if (id < 0 || id >= num_tokens) fail("{}: merge {} names the id {} of {}", where, rank, id, num_tokens);
    }
    add(merge, static_cast<int32_t>(rank));
  }
  parts_.merges = {};
  byte_ids_.fill(-1);
  const ByteAlphabet alphabet;
  for (int byte = 0; byte < 256; ++byte) {
    const auto b = static_cast<uint8_t>(byte);
    byte_ids_[b] = ids_.find(parts_.byte_level ? alphabet.spelling(b) : fmt::format("<0x{:02X}>", b));
  }
  if (parts_.byte_level && parts_.ignore_merges) {
    for (size_t id = 0; id < parts_.tokens.size(); ++id) {
      const auto bytes = alphabet.bytes(parts_.tokens[id]);
      if (bytes && !bytes->empty()) whole_.emplace(*bytes, static_cast<int32_t>(id));
    }
  }
}

void Bpe::add(const BpeParts::Merge& merge, int32_t rank) {
  const uint64_t pair = pair_of(merge.left, merge.right);
  size_t at = mixed(pair) & (table_.size() - 1);
  while (table_[at].pair != pair && table_[at].pair != ~uint64_t{0}) at = (at + 1) & (table_.size() - 1);
  table_[at] = {pair, rank, merge.merged};  // of a pair named twice the later rank counts
}

const Bpe::Entry* Bpe::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  size_t at = mixed(pair) & (table_.size() - 1);
  while (table_[at].pair != pair) {
    if (table_[at].pair == ~uint64_t{0}) return nullptr;
    at = (at + 1) & (table_.size() - 1);
  }
  return &table_[at];
}

int32_t Bpe::whole(std::string_view piece) const {
  if (!parts_.byte_level) return ids_.find(piece);
  const auto found = whole_.find(std::string(piece));
  return found == whole_.end() ? -1 : found->second;
}

void Bpe::add_symbols(std::string_view piece, std::vector<int32_t>& ids) const {
  if (parts_.byte_level) {
    for (const char c : piece) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
      if (id >= 0) {
        ids.push_back(id);
      } else if (parts_.unk >= 0) {
        if (!parts_.fuse_unk || ids.empty() || ids.back() != parts_.unk) ids.push_back(parts_.unk);
      }
    }
    return;
  }
  bool after_unk = false;
  while (!piece.empty()) {
    const std::string_view c = piece.substr(0, static_cast<size_t>(first_utf8_char(piece).num_bytes));
    piece.remove_prefix(c.size());
    const auto byte_id = [&](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
    if (const int32_t id = ids_.find(c); id >= 0) {
      ids.push_back(id);
    } else if (parts_.byte_fallback && std::all_of(c.begin(), c.end(), [&](char byte) { return byte_id(byte) >= 0; })) {
      for (const char byte : c) ids.push_back(byte_id(byte));
    } else if (parts_.unk >= 0) {
      if (!(after_unk && parts_.fuse_unk)) ids.push_back(parts_.unk);
      after_unk = true;
      continue;
    }
    after_unk = false;
  }
}

void Bpe::merge_few(BpeScratch& scratch) const {
  auto& ids = scratch.ids_;
  auto& found = scratch.found_;  // [position] rank << 32 | merged of the pair with the next
  constexpr uint64_t kNone = ~uint64_t{0};
  const auto look = [&](size_t i) {
    const Entry* entry = i + 1 < ids.size() ? find(ids[i], ids[i + 1]) : nullptr;
    return entry == nullptr ? kNone : pair_of(entry->rank, entry->merged);
  };
  found.resize(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) found[i] = look(i);
  while (ids.size() > 1) {
    const auto best =
        std::min_element(found.begin(), found.end(), [](uint64_t a, uint64_t b) { return a >> 32 < b >> 32; });
    if (*best == kNone) return;
    const auto i = static_cast<size_t>(best - found.begin());
    ids[i] = static_cast<int32_t>(*best & 0xFFFFFFFF);
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    found.erase(best + 1);
    found[i] = look(i);
    if (i > 0) found[i - 1] = look(i - 1);
  }
}

void Bpe::merge_many(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols_;
  auto& heap = scratch.heap_;  // rank, position, and the ids that stood there when it was pushed
  const auto after = [](const std::array<int32_t, 4>& a, const std::array<int32_t, 4>& b) {
    return a[0] != b[0] ? a[0] > b[0] : a[1] > b[1];
  };
  const auto n = static_cast<int32_t>(scratch.ids_.size());
  symbols.resize(scratch.ids_.size());
  for (int32_t i = 0; i < n; ++i) {
    symbols[static_cast<size_t>(i)] = {scratch.ids_[static_cast<size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1};
  }
  const auto at = [&](int32_t i) -> BpeScratch::Symbol& { return symbols[static_cast<size_t>(i)]; };
  const auto push = [&](int32_t i) {
    if (i < 0 || at(i).next < 0) return;
    const int32_t left = at(i).id, right = at(at(i).next).id;
    if (const Entry* entry = find(left, right)) {
      heap.push_back({entry->rank, i, left, right});
      std::push_heap(heap.begin(), heap.end(), after);
    }
  };
  heap.clear();
  for (int32_t i = 0; i < n; ++i) push(i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), after);
    const auto [rank, i, left, right] = heap.back();
    heap.pop_back();
    auto& symbol = at(i);
    if (symbol.id != left || symbol.next < 0 || at(symbol.next).id != right) continue;
    symbol.id = find(left, right)->merged;
    const int32_t gone = symbol.next;
    symbol.next = at(gone).next;
    at(gone).id = -1;
    if (symbol.next >= 0) at(symbol.next).previous = i;
    push(symbol.previous);
    push(i);
  }
  scratch.ids_.clear();
  for (int32_t i = 0; i >= 0; i = at(i).next) scratch.ids_.push_back(at(i).id);
}

void Bpe::encode(std::string_view piece, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  using Slot = BpeScratch::Slot;
  Slot* slot = nullptr;
  if (!piece.empty() && piece.size() <= Slot::kKeyBytes) {
    std::array<char, 32> key{};
    std::memcpy(key.data(), piece.data(), piece.size());
    slot = &scratch.slots_[hash_of(key, piece.size()) & (kNumSlots - 1)];
    if (slot->num_bytes == piece.size() && std::memcmp(slot->key.data(), piece.data(), piece.size()) == 0) {
      ids.insert(ids.end(), slot->ids.begin(), slot->ids.begin() + slot->num_ids);
      return;
    }
  }
  auto& result = scratch.ids_;
  result.clear();
  if (const int32_t id = parts_.ignore_merges ? whole(piece) : -1; id >= 0) {
    result.push_back(id);
  } else {
    add_symbols(piece, result);
    if (result.size() > kFew) {
      merge_many(scratch);
    } else {
      merge_few(scratch);
    }
  }
  ids.insert(ids.end(), result.begin(), result.end());
  if (slot != nullptr && result.size() <= Slot::kIds) {
    std::memcpy(slot->key.data(), piece.data(), piece.size());
    slot->num_bytes = static_cast<uint8_t>(piece.size());
    slot->num_ids = static_cast<uint32_t>(result.size());
    std::copy(result.begin(), result.end(), slot->ids.begin());
  }
}

}  // namespace farskip
