#include "layer/connectivity.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <regex>

#include "base/error.h"

namespace farskip {
namespace {

/// FarSkip (or `skip`) on layers first..last inclusive, standard elsewhere.
Connectivity range(int64_t num_layers, int64_t first, int64_t last, Skip skip = farskip_skip) {
  std::vector<Skip> layers(num_layers, standard_skip);
  for (int64_t k = std::max<int64_t>(first, 0); k <= std::min(last, num_layers - 1); ++k) layers[k] = skip;
  return Connectivity(std::move(layers));
}

/// The skip and the inclusive range of the non-standard layers; nullopt where it is not one skip on one range.
struct Uniform {
  Skip skip;
  int64_t first, last;
};
std::optional<Uniform> as_range(const std::vector<Skip>& layers) {
  Uniform found{standard_skip, 0, -1};
  for (int64_t k = 0; k < static_cast<int64_t>(layers.size()); ++k) {
    if (layers[k] == standard_skip) continue;
    if (found.last < 0) {
      found = {layers[k], k, k};
    } else if (layers[k] == found.skip && found.last == k - 1) {
      found.last = k;
    } else {
      return std::nullopt;
    }
  }
  return found;
}

void check(const Skip& skip, const std::string& where) {
  if (skip.attention_routed < 0 || skip.ff_routed < 0 || skip.ff_attention < -1) {
    fail("{}: skip={},{},{} is impossible; a and f are at least 0, g at least -1 (standard is 0,0,-1)", where,
         skip.attention_routed, skip.ff_routed, skip.ff_attention);
  }
  if (skip.attention_routed > 64 || skip.ff_routed > 64 || skip.ff_attention > 64) {
    fail("{}: skip={},{},{} skips more than 64 layers", where, skip.attention_routed, skip.ff_routed,
         skip.ff_attention);
  }
}

}  // namespace

const char* Connectivity::help() {
  return "standard | farskip | attn-only (only the attention *input* skips) | mlp-only | last=N | last=P% (FarSkip on "
         "the last layers) | layers=A-B | skip=a,f,g (attention of layer k reads routed outputs up to k-1-a, the "
         "feed-forward routed ones up to k-1-f and attention up to k-1-g; standard 0,0,-1, FarSkip 1,0,0), on some "
         "layers only as skip=a,f,g@A-B";
}

Connectivity Connectivity::parse(const std::string& spelling, int64_t num_layers) {
  static const std::regex last_count("last=(\\d{1,6})"), last_share("last=(\\d{1,3}(?:\\.\\d+)?)%");
  static const std::regex layers("layers=(\\d{1,6})-(\\d{1,6})");
  static const std::regex skip("skip=(\\d{1,3}),(\\d{1,3}),(-1|\\d{1,3})(?:@(\\d{1,6})-(\\d{1,6}))?");
  std::smatch m;
  if (spelling == "standard") return standard(num_layers);
  if (spelling == "farskip") return farskip(num_layers);
  if (spelling == "attn-only") return uniform(num_layers, attn_only_skip);
  if (spelling == "mlp-only") return uniform(num_layers, mlp_only_skip);
  auto bounded = [&](int64_t first, int64_t last) {
    if (first > last || last >= num_layers) {
      fail("connectivity '{}': layers {}-{} of a model with layers 0-{}", spelling, first, last, num_layers - 1);
    }
  };
  if (std::regex_match(spelling, m, last_count)) {
    const int64_t n = std::stoll(m[1]);
    if (n > num_layers) fail("connectivity '{}': the model has only {} layers", spelling, num_layers);
    return range(num_layers, num_layers - n, num_layers - 1);
  }
  if (std::regex_match(spelling, m, last_share)) {
    const double share = std::stod(m[1]) / 100;
    if (share > 1) fail("connectivity '{}': a share of the layers is at most 100%", spelling);
    return range(num_layers, num_layers - std::llround(share * static_cast<double>(num_layers)), num_layers - 1);
  }
  if (std::regex_match(spelling, m, layers)) {
    bounded(std::stoll(m[1]), std::stoll(m[2]));
    return range(num_layers, std::stoll(m[1]), std::stoll(m[2]));
  }
  if (std::regex_match(spelling, m, skip)) {
    const Skip wanted{std::stoi(m[1]), std::stoi(m[2]), std::stoi(m[3])};
    check(wanted, "connectivity '" + spelling + "'");
    if (!m[4].matched) return uniform(num_layers, wanted);
    bounded(std::stoll(m[4]), std::stoll(m[5]));
    return range(num_layers, std::stoll(m[4]), std::stoll(m[5]), wanted);
  }
  fail("connectivity '{}' is unknown; expected {}", spelling, help());
}

Connectivity Connectivity::from_config(const nlohmann::json& config, int64_t num_layers) {
  auto flag = [&](const char* key) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) return false;
    if (!found->is_boolean()) fail("config.json: {} is {}; expected true or false", key, found->dump());
    return found->get<bool>();
  };
  auto index = [&](const char* key, int64_t absent) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) return absent;
    if (!found->is_number_integer()) fail("config.json: {} is {}; expected a layer index", key, found->dump());
    return found->get<int64_t>();
  };
  const bool attn_only = flag("attn_only_farskip"), mlp_only = flag("mlp_only_farskip");
  if (attn_only && mlp_only) {
    fail(
        "config.json: attn_only_farskip and mlp_only_farskip are both true, which together say standard; set at most "
        "one");
  }
  if (!flag("farskip")) return standard(num_layers);
  Skip skip = attn_only ? attn_only_skip : mlp_only ? mlp_only_skip : farskip_skip;
  if (const auto own = config.find("farskip_skip"); own != config.end()) {
    if (!own->is_array() || own->size() != 3 ||
        !std::all_of(own->begin(), own->end(), [](auto& x) { return x.is_number_integer(); })) {
      fail("config.json: farskip_skip is {}; expected three integers [a, f, g]", own->dump());
    }
    if (attn_only || mlp_only)
      fail("config.json: farskip_skip contradicts attn_only_farskip or mlp_only_farskip; keep one");
    // A number beyond int becomes one that check() refuses.
    auto bounded = [&](size_t i) { return static_cast<int>(std::clamp<int64_t>((*own)[i].get<int64_t>(), -2, 1000)); };
    skip = {bounded(0), bounded(1), bounded(2)};
    check(skip, "config.json: farskip_skip");
  }
  return range(num_layers, index("farskip_start_idx", 0), index("farskip_end_idx", 10000), skip);
}

void Connectivity::to_config(nlohmann::json& config) const {
  for (const char* key :
       {"farskip", "farskip_start_idx", "farskip_end_idx", "attn_only_farskip", "mlp_only_farskip", "farskip_skip"}) {
    config.erase(key);
  }
  const auto form = as_range(layers_);
  if (!form)
    fail("connectivity {} cannot be written to a config.json: it is not one skip on one range of layers", to_string());
  config["farskip"] = !is_standard();
  if (is_standard()) return;
  config["farskip_start_idx"] = form->first;
  config["farskip_end_idx"] = form->last == num_layers() - 1 ? 10000 : form->last;
  config["attn_only_farskip"] = form->skip == attn_only_skip;
  config["mlp_only_farskip"] = form->skip == mlp_only_skip;
  if (form->skip != farskip_skip && form->skip != attn_only_skip && form->skip != mlp_only_skip) {
    config["farskip_skip"] = {form->skip.attention_routed, form->skip.ff_routed, form->skip.ff_attention};
  }
}

bool Connectivity::is_standard() const {
  return std::all_of(layers_.begin(), layers_.end(), [](const Skip& skip) { return skip == standard_skip; });
}

std::string Connectivity::to_string() const {
  if (is_standard()) return "standard";
  const auto form = as_range(layers_);
  if (!form) return "mixed";
  const auto& [skip, first, last] = *form;
  const bool everywhere = first == 0 && last == num_layers() - 1;
  if (everywhere && skip == farskip_skip) return "farskip";
  if (everywhere && skip == attn_only_skip) return "attn-only";
  if (everywhere && skip == mlp_only_skip) return "mlp-only";
  if (skip == farskip_skip) {
    return last == num_layers() - 1 ? fmt::format("last={}", num_layers() - first)
                                    : fmt::format("layers={}-{}", first, last);
  }
  const auto text = fmt::format("skip={},{},{}", skip.attention_routed, skip.ff_routed, skip.ff_attention);
  return everywhere ? text : text + fmt::format("@{}-{}", first, last);
}

}  // namespace farskip
