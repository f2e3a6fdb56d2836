#include "config/batch_ramp.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace farskip {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

BatchRamp::BatchRamp(int64_t full, int64_t start, int64_t increment, int64_t samples)
    : full_(full), start_(start), increment_(increment), samples_(samples) {
  const auto refuse = [&](const std::string& why) {
    fail("rampup_batch_size = {},{},{} with global_batch_size = {}: {}", start, increment, samples, full, why);
  };
  if (start < 1 || start > full) refuse("the first batch must have between 1 and global_batch_size sequences");
  if (increment < 1) refuse("the increment must be at least 1");
  if (samples < 0) refuse("the samples of the ramp cannot be negative");
  if ((full - start) % increment != 0) {
    refuse(fmt::format("{} - {} = {} is not a multiple of the increment {}", full, start, full - start, increment));
  }
  num_increments_ = (full - start) / increment;
  if (samples < num_increments_) {
    refuse(fmt::format("{} increments need at least as many samples; give more samples, or a larger increment",
                       num_increments_));
  }
}

BatchRamp BatchRamp::parse(const std::string& text, int64_t full) {
  if (text.empty()) return BatchRamp(full);
  int64_t numbers[3];
  const char *at = text.data(), *end = at + text.size();
  for (int i = 0; i < 3; ++i) {
    const auto [stop, error] = std::from_chars(at, end, numbers[i]);
    const bool last = i == 2;
    if (error != std::errc() || (last ? stop != end : stop == end || *stop != ',')) {
      fail("rampup_batch_size = \"{}\": three integers START,INCREMENT,SAMPLES were expected, such as 16,8,10000",
           text);
    }
    at = stop + 1;
  }
  return BatchRamp(full, numbers[0], numbers[1], numbers[2]);
}

void BatchRamp::check_divides(int64_t micro_batch_size, int64_t ranks) const {
  const int64_t round = micro_batch_size * ranks;
  const auto check = [&](const char* what, int64_t value) {
    if (value % round != 0) {
      fail("rampup_batch_size = {},{},{}: the {} {} is not a multiple of micro_batch_size * ranks = {} * {} = {}",
           start_, increment_, samples_, what, value, micro_batch_size, ranks, round);
    }
  };
  check("first batch", start_);
  if (num_increments_ > 0) check("increment", increment_);
}

int64_t BatchRamp::batch_size(int64_t consumed_samples) const {
  if (num_increments_ == 0 || consumed_samples >= samples_) return full_;
  const __int128 steps = static_cast<__int128>(consumed_samples) * num_increments_ / samples_;
  return start_ + static_cast<int64_t>(steps) * increment_;
}

template <typename Visit>
void BatchRamp::walk(Visit visit) const {
  int64_t consumed = 0;
  while (true) {
    const int64_t size = batch_size(consumed);
    if (size == full_) break;
    const int64_t next = (size - start_) / increment_ + 1;  // increments that end this size
    const auto border =
        static_cast<int64_t>((static_cast<__int128>(next) * samples_ + num_increments_ - 1) / num_increments_);
    const int64_t iterations = divide_up(border - consumed, size);
    if (!visit(consumed, size, iterations)) return;
    consumed += iterations * size;
  }
  visit(consumed, full_, int64_t{-1});
}

BatchPosition BatchRamp::at(int64_t iteration) const {
  FARSKIP_CHECK(iteration >= 0);
  BatchPosition position;
  walk([&](int64_t consumed, int64_t size, int64_t iterations) {
    if (iterations >= 0 && iteration >= iterations) {
      iteration -= iterations;
      return true;
    }
    position = {consumed + iteration * size, size};
    return false;
  });
  return position;
}

int64_t BatchRamp::iterations_for(int64_t samples) const {
  int64_t result = 0;
  walk([&](int64_t consumed, int64_t size, int64_t iterations) {
    if (iterations >= 0 && samples > consumed + iterations * size) {
      result += iterations;
      return true;
    }
    result += std::max<int64_t>(0, divide_up(samples - consumed, size));
    return false;
  });
  return result;
}

}  // namespace farskip
