#pragma once
// A collective as data: what every transport and wrapper launches, and what it costs on a wire.

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace farskip {

enum class CollectiveKind : uint8_t { all_to_all, reduce_scatter, all_gather, all_reduce, broadcast, barrier };
const char* to_string(CollectiveKind kind);

struct Collective {
  CollectiveKind kind = CollectiveKind::barrier;
  std::string name;
  /// Contiguous; dimension 0 counts rows. all_reduce: one dimension (elements are rows).
  at::Tensor input;
  /// Rows to and from each rank: [size].
  ///   all_to_all       send_rows, recv_rows
  ///   reduce_scatter   send_rows: rows of the sum that each rank keeps; recv_rows: own count from every rank
  ///   all_gather       send_rows: own count to every rank; recv_rows: rows each rank contributes
  ///   all_reduce       send_rows: elements each rank adds up; recv_rows: own count from every rank
  ///   broadcast        as all_to_all: the root sends everything to the others (nobody sends to itself)
  std::vector<int64_t> send_rows, recv_rows;
  int root = 0;
  /// Called once, by any thread, when all participants have launched, with the time at which the last one did. A
  /// transport that does not know calls it when the data arrived, with the time of this rank's launch. May be empty.
  std::function<void(double started_us)> on_started;
  /// On a device: how long its lane pauses before the result is complete (an emulated link; on a CPU that waits
  /// itself).
  double pause_us = 0;

  /// Its completion is an event on a device, and its on_started says nothing about when that happens.
  bool on_device() const { return input.defined() && !input.device().is_cpu(); }
};

/// Bytes of one exchange from and to this rank; rows that stay on their rank are not counted.
struct Traffic {
  int64_t sent = 0;
  int64_t received = 0;
};

/// The exchanges a collective consists of, in order: two for all_reduce (reduce-scatter, all-gather), else one.
std::vector<Traffic> traffic(const Collective& op, int rank);

}  // namespace farskip
