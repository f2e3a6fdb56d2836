#include "layer/layout.h"

#include <charconv>
#include <set>
#include <sstream>

#include "base/error.h"
#include "config/model_config.h"

namespace farskip {

Phase parse_phase(const std::string& text) {
  for (Phase phase : {Phase::train, Phase::prefill, Phase::decode}) {
    if (text == to_string(phase)) return phase;
  }
  fail("'{}' is not a phase; expected train, prefill or decode", text);
}

const char* to_string(Phase phase) {
  constexpr const char* names[] = {"train", "prefill", "decode"};
  return names[static_cast<size_t>(phase)];
}

const char* to_string(Group group) {
  constexpr const char* names[] = {"none", "expert", "expert_data", "world"};
  return names[static_cast<size_t>(group)];
}

Layout Layout::parse(const std::string& text) {
  constexpr int max_ranks = 1 << 20;
  Layout layout;
  std::set<std::string> given;
  std::stringstream items(text);
  for (std::string item; std::getline(items, item, ',');) {
    const auto equals = item.find('=');
    const std::string key = item.substr(0, equals);
    if (!given.insert(key).second) fail("layout '{}': {} is given twice", text, key);
    const std::string value = equals == std::string::npos ? "" : item.substr(equals + 1);
    if (key == "exchange") {
      if (value != "a2a" && value != "gather")
        fail("layout '{}': exchange is '{}'; expected a2a or gather", text, value);
      layout.all_to_all = value == "a2a";
      continue;
    }
    if (key == "experts") {
      if (value != "ep" && value != "tp") fail("layout '{}': experts is '{}'; expected ep or tp", text, value);
      layout.experts_tp = value == "tp";
      continue;
    }
    int* target = key == "ep"   ? &layout.ep
                  : key == "dp" ? &layout.dp
                  : key == "tp" ? &layout.tp
                  : key == "pp" ? &layout.pp
                                : nullptr;
    if (target == nullptr)
      fail("layout '{}': '{}' is unknown; expected ep, dp, tp, pp, exchange or experts, as in ep=8,dp=2", text, item);
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), *target);
    if (error != std::errc{} || end != value.data() + value.size() || *target < 1 || *target > max_ranks) {
      fail("layout '{}': {} is '{}'; expected a number of ranks, 1 .. {}", text, key, value, max_ranks);
    }
  }
  const double world = static_cast<double>(layout.ep) * layout.dp * layout.tp * layout.pp;
  if (world > max_ranks) fail("layout '{}': {:.0f} ranks; at most {} are possible", text, world, max_ranks);
  return layout;
}

std::string Layout::to_string() const {
  std::string text = fmt::format("ep={},dp={}", ep, dp);
  if (tp > 1) text += fmt::format(",tp={}", tp);
  if (pp > 1) text += fmt::format(",pp={}", pp);
  if (all_to_all) text += ",exchange=a2a";
  if (experts_tp) text += ",experts=tp";
  return text;
}

Exchange Layout::exchange(Phase phase) const {
  if (phase == Phase::train || all_to_all) return Exchange::all_to_all;
  return tp > 1 ? Exchange::all_reduce : Exchange::gather;
}

void Layout::check(const ModelConfig& model, Phase phase) const {
  const int ranks = expert_divisor(phase);
  bool any_moe = false, any_dense = false;
  for (LayerKind kind : model.layers) (kind == LayerKind::moe ? any_moe : any_dense) = true;
  if (any_moe && model.num_experts % ranks != 0) {
    fail("layout {}: {} experts cannot be divided over {} ranks; choose a divisor of {}{}", to_string(),
         model.num_experts, ranks, model.num_experts, tp > 1 ? ", or experts=tp" : "");
  }
  if (experts_tp && tp == 1) fail("layout {}: experts=tp divides experts over tp ranks; give tp=N", to_string());
  if (tp > 1 && all_to_all) {
    fail("layout {}: with tp={} every rank has all tokens, so none are exchanged; leave exchange=a2a out, or use ep",
         to_string(), tp);
  }
  const auto divides = [&](const char* what, int64_t width, bool there) {
    if (tp > 1 && there && width % tp != 0) {
      fail("layout {}: {} of width {} cannot be divided over tp={}; choose a divisor", to_string(), what, width, tp);
    }
  };
  divides("dense feed-forwards", model.intermediate_size, any_dense);
  divides("shared experts", model.shared_intermediate_size, any_moe);
  divides("experts", model.moe_intermediate_size, any_moe && experts_tp);
  if (tp > 1 && phase == Phase::train)
    fail("layout {}: tp={} in training is not built yet; use ep and dp", to_string(), tp);
  if (tp > 1 && (model.attention.num_heads % tp != 0 || model.attention.num_kv_heads % tp != 0)) {
    fail("layout {}: {} attention heads ({} for keys and values) cannot be divided over tp={}", to_string(),
         model.attention.num_heads, model.attention.num_kv_heads, tp);
  }
  if (tp > 1 && ep > 1) {
    fail("layout {}: with tp={} the experts are divided over the same {} ranks, so ep must be 1 (it is {})",
         to_string(), tp, tp, ep);
  }
  if (pp > 1) fail("layout {}: pp={} is not built yet; use pp=1", to_string(), pp);
}

}  // namespace farskip
