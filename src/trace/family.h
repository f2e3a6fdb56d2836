#pragma once
// Families of stages: what the eye tells apart in a timeline. The one place that gives stages colours and letters.

#include <array>
#include <string>

#include "trace/span.h"

namespace farskip {

enum class StageFamily : uint8_t { attention, shared, experts, router, communication, head, optimizer, other };
inline constexpr std::array kStageFamilies = {StageFamily::attention, StageFamily::shared,        StageFamily::experts,
                                              StageFamily::router,    StageFamily::communication, StageFamily::head,
                                              StageFamily::optimizer, StageFamily::other};

/// By the stage's row in layer/stage.h; a collective is always communication, an unknown stage is other. The family of
/// a wait is the one of what it waits for (draw waits by their kind).
StageFamily family_of(const Span& span);
/// "attention", "shared expert, dense", ...: for legends.
const char* legend_text(StageFamily family);
/// One word: "attention", "experts", ...: for class names and categories.
const char* to_string(StageFamily family);

struct Rgb {
  int red, green, blue;
  std::string hex() const;                          ///< "#3b6fd4"
  Rgb mixed(const Rgb& other, double share) const;  ///< share 0: this, 1: other
  bool is_dark() const;                             ///< white text reads better on it than black
};
/// The family's colour, darker in the backward pass, lighter for weight gradients, greyer in a teacher's pass.
Rgb colour_of(StageFamily family, const std::string& pass);

}  // namespace farskip
