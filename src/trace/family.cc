#include "trace/family.h"

#include <fmt/format.h>

#include <cmath>

#include "layer/stage.h"

namespace farskip {
namespace {

StageFamily family_of(Stage stage) {
  if (row(stage).lane == Lane::comm) return StageFamily::communication;
  switch (stage) {
    case Stage::view_attn:
    case Stage::qkv:
    case Stage::attn_core:
    case Stage::attn_out:
      return StageFamily::attention;
    case Stage::shared:
    case Stage::dense:
      return StageFamily::shared;
    case Stage::experts:
      return StageFamily::experts;
    case Stage::view_ff:
    case Stage::route:
    case Stage::permute:
    case Stage::unpermute:
      return StageFamily::router;
    case Stage::embed:
    case Stage::view_match:
    case Stage::match:
    case Stage::view_head:
    case Stage::head:
    case Stage::loss:
    case Stage::sample:
      return StageFamily::head;
    case Stage::optimizer:
      return StageFamily::optimizer;
    default:
      return StageFamily::other;
  }
}

double linear(int channel) {
  const double c = channel / 255.0;
  return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
}

}  // namespace

StageFamily family_of(const Span& span) {
  if (span.kind == SpanKind::collective) return StageFamily::communication;
  for (const StageRow& known : stage_table()) {
    if (known.name == span.stage) return family_of(known.stage);
  }
  return StageFamily::other;
}

const char* legend_text(StageFamily family) {
  switch (family) {
    case StageFamily::shared:
      return "shared expert, dense";
    case StageFamily::experts:
      return "routed experts";
    case StageFamily::router:
      return "router, permutation";
    case StageFamily::head:
      return "embedding, head, loss";
    default:
      return to_string(family);
  }
}

const char* to_string(StageFamily family) {
  switch (family) {
    case StageFamily::attention:
      return "attention";
    case StageFamily::shared:
      return "shared";
    case StageFamily::experts:
      return "experts";
    case StageFamily::router:
      return "router";
    case StageFamily::communication:
      return "communication";
    case StageFamily::head:
      return "head";
    case StageFamily::optimizer:
      return "optimizer";
    case StageFamily::other:
      return "other";
  }
  return "other";
}

std::string Rgb::hex() const { return fmt::format("#{:02x}{:02x}{:02x}", red, green, blue); }

Rgb Rgb::mixed(const Rgb& other, double share) const {
  const auto mix = [&](int a, int b) { return static_cast<int>(std::lround(a + share * (b - a))); };
  return {mix(red, other.red), mix(green, other.green), mix(blue, other.blue)};
}

bool Rgb::is_dark() const {
  // WCAG's relative luminance. At 0.18 black and white text have the same contrast; on saturated colours white reads
  // better a little beyond.
  return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue) < 0.22;
}

Rgb colour_of(StageFamily family, const std::string& pass) {
  Rgb base{0x7f, 0x87, 0x90};
  switch (family) {
    case StageFamily::attention:
      base = {0x3b, 0x78, 0xd8};
      break;
    case StageFamily::shared:
      base = {0x22, 0xa3, 0x9a};
      break;
    case StageFamily::experts:
      base = {0x84, 0x5e, 0xc9};
      break;
    case StageFamily::router:
      base = {0xd9, 0xbc, 0x3a};
      break;
    case StageFamily::communication:
      base = {0xe8, 0x8b, 0x2d};
      break;
    case StageFamily::head:
      base = {0x7d, 0x8b, 0x3c};
      break;
    case StageFamily::optimizer:
      base = {0xcf, 0x62, 0xa3};
      break;
    case StageFamily::other:
      break;
  }
  if (pass == "bwd") return base.mixed({0, 0, 0}, 0.35);
  if (pass == "teach") return base.mixed({0x8c, 0x8c, 0x8c}, 0.55);
  if (pass == "rec") return base.mixed({0, 0, 0}, 0.18);
  if (pass == "wgrad") return base.mixed({255, 255, 255}, 0.5);
  return base;
}

}  // namespace farskip
