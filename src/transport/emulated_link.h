#pragma once
// A link of given latency and rate on top of any transport. A collective completes no earlier than the launch of its
// last participant (or the end of the link's previous collective, if later) + for each of its exchanges latency +
// max(bytes sent, bytes received) / rate. In flight it costs no CPU; rows that stay on their rank cost nothing.
// On a device it is a pause of the communication stream, behind the copies.

#include <memory>
#include <mutex>
#include <string>

#include "transport/transport.h"

namespace farskip {

struct LinkSpec {
  double latency_us = 0;
  double bytes_per_second = 0;  ///< 0: unlimited

  /// "none" | "rate=2gbit,latency=50us": rate in bit, kbit, mbit, gbit (per second); latency in us, ms or s.
  static LinkSpec parse(const std::string& text);
  std::string to_string() const;
  bool off() const { return latency_us == 0 && bytes_per_second == 0; }
  /// Link time of one collective of this rank in microseconds.
  double duration_us(const std::vector<Traffic>& exchanges) const;
  bool operator==(const LinkSpec&) const = default;
};

/// The link of one rank, shared by all its communicators, which it serves one collective at a time in the order in
/// which they start. Thread-safe.
class Link {
 public:
  explicit Link(LinkSpec spec) : spec_(spec) {}
  /// For collectives launched from now on. REQUIRES: nothing in flight on this rank (between steps); all ranks do the
  /// same.
  void set_spec(LinkSpec spec);
  LinkSpec spec() const;
  /// Books the link from `started_us`; returns when the collective is through.
  double reserve(double started_us, const std::vector<Traffic>& exchanges);

 private:
  mutable std::mutex mutex_;
  LinkSpec spec_;
  double free_us_ = 0;
};

std::unique_ptr<Transport> make_emulated_link(std::unique_ptr<Transport> inner, std::shared_ptr<Link> link);
/// All communicators of `inner` over one link.
std::unique_ptr<World> with_link(std::unique_ptr<World> inner, std::shared_ptr<Link> link);

}  // namespace farskip
