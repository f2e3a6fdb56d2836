#include "layer/streams.h"

#include <algorithm>

#include "base/error.h"

namespace farskip {

Reach attention_reach(const Skip& skip, int k) { return {k - 1 - skip.attention_routed, k - 1}; }

Reach feed_forward_reach(const Skip& skip, int k) { return {k - 1 - skip.ff_routed, k - 1 - skip.ff_attention}; }

bool Leaf::is_attention() const { return parts == std::vector{Contribution::attention}; }

const char* to_string(Contribution contribution) {
  constexpr const char* names[] = {"attn", "routed", "shared", "dense"};
  return names[static_cast<size_t>(contribution)];
}

std::vector<Contribution> contributions(const ModelConfig& model, int k) {
  if (!model.is_moe(k)) return {Contribution::attention, Contribution::dense};
  if (!model.has_shared()) return {Contribution::attention, Contribution::routed};
  return {Contribution::attention, Contribution::routed, Contribution::shared};
}

namespace {

/// Does a reader of the stream after layer k's feed-forward include the contribution?
bool within(Reach reach, Contribution c, int k) {
  switch (c) {
    case Contribution::attention:
      return reach.attention >= k;
    case Contribution::routed:
      return reach.routed >= k;
    case Contribution::shared:
    case Contribution::dense:
      return true;
  }
  return true;
}

}  // namespace

std::vector<std::vector<Contribution>> shared_reductions(const ModelConfig& model, const Connectivity& connectivity,
                                                         int k) {
  const int num_layers = static_cast<int>(model.num_layers());
  // The signature of a contribution: which readers include it. The feed-forward of layer k itself can only read attn_k.
  auto signature = [&](Contribution c) {
    std::vector<bool> readers;
    readers.push_back(c == Contribution::attention && within(feed_forward_reach(connectivity.layer(k), k), c, k));
    for (int reader = k + 1; reader < num_layers; ++reader) {
      readers.push_back(within(attention_reach(connectivity.layer(reader), reader), c, k));
      readers.push_back(within(feed_forward_reach(connectivity.layer(reader), reader), c, k));
    }
    return readers;
  };
  std::vector<std::vector<Contribution>> groups;
  std::vector<std::vector<bool>> signatures;
  for (Contribution c : contributions(model, k)) {
    const auto mine = signature(c);
    const auto found = std::find(signatures.begin(), signatures.end(), mine);
    if (found == signatures.end()) {
      signatures.push_back(mine);
      groups.push_back({c});
    } else {
      groups[found - signatures.begin()].push_back(c);
    }
  }
  return groups;
}

Streams::Streams(StageGraph& graph, const ModelConfig& model, std::string prefix, ValueId embedding)
    : graph_(graph), model_(model), prefix_(std::move(prefix)), leaves_(model.num_layers()), embedding_(embedding) {}

/// Limits that include the same leaves are one view: clip to the layers that exist and step down over dense ones.
Reach Streams::canonical(int last_layer, Reach reach) const {
  reach.attention = std::min(reach.attention, last_layer);
  reach.routed = std::min(reach.routed, last_layer);
  while (reach.routed >= 0 && !model_.is_moe(reach.routed)) --reach.routed;
  return reach;
}

/// "x5" for the whole stream, else what is included beside it.
std::string Streams::view_name(char letter, int k, Reach reach, Reach whole) const {
  const std::string base = fmt::format("{}{}{}", prefix_, letter, k);
  if (reach.routed == whole.routed && reach.attention == whole.attention) return base;
  return base + fmt::format("[routed<={},attn<={}]", reach.routed, reach.attention);
}

ValueId Streams::add(ValueId left, ValueId right, std::string name, std::vector<Sum>& sums) {
  const auto [entry, is_new] = sums_.try_emplace({left, right}, no_value);
  if (is_new) {
    entry->second = graph_.add_value(std::move(name), true);
    sums.push_back({entry->second, left, right});
  }
  return entry->second;
}

ValueId Streams::before(int k, Reach reach, std::vector<Sum>& sums) {
  if (k == 0) return embedding_;
  const int last = k - 1;
  reach = canonical(last, reach);
  const auto key = std::tuple(k, reach.routed, reach.attention);
  if (const auto found = before_.find(key); found != before_.end()) return found->second;

  const ValueId base = between(last, reach, sums);
  ValueId added = no_value;
  for (const Leaf& leaf : leaves_[last]) {
    const bool included =
        std::all_of(leaf.parts.begin(), leaf.parts.end(), [&](Contribution c) { return within(reach, c, last); });
    if (leaf.is_attention() || !included) continue;
    added = added == no_value ? leaf.value : add(added, leaf.value, fmt::format("{}ff{}", prefix_, last), sums);
  }
  const ValueId view =
      added == no_value ? base : add(base, added, view_name('x', k, reach, canonical(last, {last, last})), sums);
  return before_[key] = view;
}

ValueId Streams::between(int k, Reach reach, std::vector<Sum>& sums) {
  reach = {canonical(k - 1, reach).routed, std::min(reach.attention, k)};
  const auto key = std::tuple(k, reach.routed, reach.attention);
  if (const auto found = between_.find(key); found != between_.end()) return found->second;

  ValueId view = before(k, reach, sums);
  if (reach.attention >= k) {
    const Reach whole{canonical(k - 1, {k, k}).routed, k};
    for (const Leaf& leaf : leaves_[k]) {
      if (leaf.is_attention()) view = add(view, leaf.value, view_name('h', k, reach, whole), sums);
    }
  }
  return between_[key] = view;
}

}  // namespace farskip
