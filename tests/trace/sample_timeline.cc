#include "sample_timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace farskip {
namespace {

/// Compute runs at once; collectives queue on the link; awaiting one leaves a wait span if it is not complete.
class Clock {
 public:
  Clock(Timeline& timeline, int rank, double link) : timeline_(timeline), rank_(rank), link_(link) {}

  void compute(int layer, const char* pass, const char* stage, double us) {
    span(layer, pass, stage, "compute", SpanKind::compute, now_, now_ + us);
    now_ += us;
  }
  void launch(int layer, const char* pass, const char* stage, double us) {
    const double begin = std::max(now_, link_free_);
    link_free_ = begin + us * link_ * (1 + 0.02 * rank_);
    done_[name(layer, pass, stage)] = link_free_;
    span(layer, pass, stage, "ep", SpanKind::collective, begin, link_free_);
  }
  void await(int layer, const char* pass, const char* stage) {
    const double done = done_.at(name(layer, pass, stage));
    if (done <= now_) return;
    span(layer, pass, stage, "compute", SpanKind::wait, now_, done);
    now_ = done;
  }

 private:
  static std::string name(int layer, const char* pass, const char* stage) {
    return layer < 0 ? fmt::format("mb0.{}.{}", pass, stage) : fmt::format("mb0.l{}.{}.{}", layer, pass, stage);
  }
  void span(int layer, const char* pass, const char* stage, const char* lane, SpanKind kind, double begin, double end) {
    timeline_.spans.push_back({rank_, lane, name(layer, pass, stage), stage, pass, kind, begin, end});
  }

  Timeline& timeline_;
  const int rank_;
  const double link_;
  double now_ = 1000, link_free_ = 0;  // zero of a clock is anywhere
  std::map<std::string, double> done_;
};

void forward(Clock& clock, int num_layers) {
  clock.compute(-1, "fwd", "embed", 20);
  for (int k = 0; k < num_layers; ++k) {
    clock.compute(k, "fwd", "qkv", 45);
    if (k > 0) clock.await(k - 1, "fwd", "combine");
    clock.compute(k, "fwd", "view_ff", 4);
    clock.compute(k, "fwd", "route", 6);
    clock.launch(k, "fwd", "counts", 3);
    clock.await(k, "fwd", "counts");
    clock.compute(k, "fwd", "permute", 5);
    clock.launch(k, "fwd", "dispatch", 70);
    clock.compute(k, "fwd", "attn_core", 50);
    clock.compute(k, "fwd", "attn_out", 25);
    clock.await(k, "fwd", "dispatch");
    clock.compute(k, "fwd", "experts", 90);
    clock.launch(k, "fwd", "combine", 80);
    clock.compute(k, "fwd", "shared", 40);
  }
  clock.await(num_layers - 1, "fwd", "combine");
  clock.compute(-1, "fwd", "head", 60);
  clock.compute(-1, "fwd", "loss", 15);
}

void backward(Clock& clock, int num_layers) {
  clock.compute(-1, "bwd", "loss", 15);
  clock.compute(-1, "bwd", "head", 60);
  for (int k = num_layers - 1; k >= 0; --k) {
    clock.launch(k, "bwd", "combine", 80);
    clock.compute(k, "bwd", "shared", 40);
    clock.compute(k, "wgrad", "shared", 40);
    if (k + 1 < num_layers) clock.compute(k + 1, "wgrad", "qkv", 45);
    clock.await(k, "bwd", "combine");
    clock.compute(k, "bwd", "experts", 90);
    clock.launch(k, "bwd", "dispatch", 70);
    clock.compute(k, "wgrad", "experts", 90);
    clock.compute(k, "bwd", "attn_out", 25);
    clock.compute(k, "bwd", "attn_core", 110);
    clock.await(k, "bwd", "dispatch");
    clock.compute(k, "bwd", "permute", 5);
    clock.compute(k, "bwd", "qkv", 45);
  }
  clock.compute(0, "wgrad", "qkv", 45);
  clock.launch(-1, "step", "grad_reduce", 120);
  clock.await(-1, "step", "grad_reduce");
  clock.compute(-1, "step", "optimizer", 110);
}

}  // namespace

Timeline sample_timeline(const std::string& title, int num_layers, double link, int num_ranks) {
  Timeline timeline{title, {}};
  for (int rank = 0; rank < num_ranks; ++rank) {
    Clock clock(timeline, rank, link);
    forward(clock, num_layers);
    backward(clock, num_layers);
  }
  return timeline;
}

}  // namespace farskip
