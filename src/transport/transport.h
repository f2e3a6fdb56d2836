#pragma once
// How bytes cross ranks. A transport is one rank's handle on one communicator; a world hands out communicators.
//
// Contract of every transport:
//  - all ranks of a communicator launch the same collectives in the same order;
//  - launch returns at once, the collective progresses without the caller, Pending::await yields the result;
//  - `input` may be read until the await returns and must not be written to before; afterwards it is free again;
//  - results are fresh tensors without gradient (with one rank: of all_to_all, all_gather, broadcast the input itself);
//  - sums are taken in rank order, in fp32 for bf16 and fp16: the same bits on every rank and every transport;
//  - errors are sticky: after a failure every launch and await on any rank reports the first one, nobody hangs.
// Handles are not thread-safe: one thread launches on a communicator (awaiting in another one is fine).

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "transport/collective.h"
#include "transport/pending.h"

namespace farskip {

struct TransportOptions {
  double timeout_s = 300;    ///< a collective that lacks a rank for so long fails and names it
  double heartbeat_s = 0.2;  ///< how often a process shows that it is alive
};

class Transport {
 public:
  virtual ~Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  int rank() const { return rank_; }                 ///< within this communicator
  int size() const { return size_; }                 ///< number of ranks
  const std::string& name() const { return name_; }  ///< "expert", "world", ...

  /// rows [sum(send_rows), ...] sorted by destination -> [sum(recv_rows), ...] sorted by source. Any dtype; zeros are
  /// fine.
  Pending all_to_all(at::Tensor rows, std::vector<int64_t> send_rows, std::vector<int64_t> recv_rows, std::string name);

  /// Sum over ranks of rows [N, ...]; rank r keeps rows_of_rank[r] of them (empty: N / size each).
  Pending reduce_scatter(at::Tensor rows, std::string name, std::vector<int64_t> rows_of_rank = {});

  /// Rows of all ranks one below the other; rank r contributes rows_of_rank[r] (empty: all ranks as many as this one).
  Pending all_gather(at::Tensor rows, std::string name, std::vector<int64_t> rows_of_rank = {});

  /// Sum over ranks, of any shape: reduce-scatter, then all-gather.
  Pending all_reduce(at::Tensor value, std::string name);

  /// The root's tensor on every rank; the others give a tensor of the same shape and dtype, which is not read.
  Pending broadcast(at::Tensor value, int root, std::string name);

  /// Returns when all ranks have arrived.
  void barrier(std::string name = "barrier");

  /// Launches a collective that is complete and consistent (the calls above see to that). REQUIRES: as documented
  /// there.
  virtual Pending launch(Collective op) = 0;

  /// Makes every later launch and await on any rank of this communicator throw Error(message), if none failed before.
  virtual void abort(const std::string& message) = 0;

  /// The first error of this communicator; empty while it is sound.
  virtual std::string failure() = 0;

 protected:
  Transport(int rank, int size, std::string name) : rank_(rank), size_(size), name_(std::move(name)) {}
  /// A report with all that is known at launch.
  CollectiveReport report_for(const Collective& op) const;

 private:
  int rank_;
  int size_;
  std::string name_;
};

/// One rank's view of all ranks of a run.
class World {
 public:
  virtual ~World() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  /// The communicator of `ranks` (increasing, containing this rank). All its members call this, in the same order of
  /// names.
  virtual std::unique_ptr<Transport> group(const std::vector<int>& ranks, const std::string& name) = 0;
  /// The communicator of all ranks.
  std::unique_ptr<Transport> all(const std::string& name = "world");

  /// As Transport::abort, for all communicators of this run.
  virtual void abort(const std::string& message) = 0;
};

/// The worlds of all ranks of one process, one per rank thread.
using Worlds = std::vector<std::unique_ptr<World>>;

/// Own position in the members of a group. Throws Error unless they increase, are ranks of `world` and contain its own.
int position_in(const std::vector<int>& ranks, const World& world, const std::string& name);

/// Transport of a single rank: nothing is sent.
std::unique_ptr<Transport> make_single(const std::string& name);

/// A world whose communicators are each wrapped, e.g. in an emulated link.
using TransportWrapper = std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>)>;
std::unique_ptr<World> wrap(std::unique_ptr<World> inner, TransportWrapper wrapper);

}  // namespace farskip
