#include "transport/transport.h"

#include <fmt/ranges.h>

#include <numeric>

#include "base/error.h"
#include "transport/clock.h"
#include "transport/reduce.h"

namespace farskip {
namespace {

int64_t total(const std::vector<int64_t>& rows) { return std::accumulate(rows.begin(), rows.end(), int64_t{0}); }

at::Tensor as_rows(const at::Tensor& rows, const Transport& on, const std::string& name) {
  if (!rows.defined() || rows.dim() == 0) fail("{} on '{}': needs a tensor with a dimension of rows", name, on.name());
  if (!rows.is_contiguous()) fail("{} on '{}': rows must be contiguous; call .contiguous() first", name, on.name());
  return rows.detach();
}

/// Splits given by the caller: one count per rank, none negative.
void check_rows(const std::vector<int64_t>& rows, const char* what, const Transport& on, const std::string& name) {
  if (static_cast<int>(rows.size()) != on.size())
    fail("{} on '{}': {} counts of {} rows for {} ranks; give one per rank", name, on.name(), rows.size(), what,
         on.size());
  for (int r = 0; r < on.size(); ++r)
    if (rows[r] < 0)
      fail("{} on '{}': {} rows for rank {} are {}; must be 0 or more", name, on.name(), what, r, rows[r]);
}

void check_total(int64_t sum, int64_t rows, const char* what, const Transport& on, const std::string& name) {
  if (sum != rows)
    fail("{} on '{}': the {} counts add up to {} rows, the tensor has {}; they must be equal", name, on.name(), what,
         sum, rows);
}

/// The rank's own collectives: what comes out is what went in.
class Single final : public Transport {
 public:
  explicit Single(const std::string& name) : Transport(0, 1, name) {}

  Pending launch(Collective op) override {
    if (!failure_.empty()) throw Error(failure_);
    auto report = report_for(op);
    if (op.on_started) op.on_started(report.launched_us);
    const bool sums = op.kind == CollectiveKind::reduce_scatter || op.kind == CollectiveKind::all_reduce;
    report.completed_us = report.launched_us;
    return {std::make_unique<Done>(sums ? op.input.clone() : op.input), report};
  }
  void abort(const std::string& message) override {
    if (failure_.empty()) failure_ = message;
  }
  std::string failure() override { return failure_; }

 private:
  class Done final : public InFlight {
   public:
    explicit Done(at::Tensor result) : result_(std::move(result)) {}
    at::Tensor finish(CollectiveReport&) override { return result_; }
    bool ready() override { return true; }
    bool failed() override { return false; }

   private:
    at::Tensor result_;
  };

  std::string failure_;
};

class WrappedWorld final : public World {
 public:
  WrappedWorld(std::unique_ptr<World> inner, TransportWrapper wrapper)
      : inner_(std::move(inner)), wrapper_(std::move(wrapper)) {}
  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::unique_ptr<Transport> group(const std::vector<int>& ranks, const std::string& name) override {
    return wrapper_(inner_->group(ranks, name));
  }
  void abort(const std::string& message) override { inner_->abort(message); }

 private:
  std::unique_ptr<World> inner_;
  TransportWrapper wrapper_;
};

}  // namespace

CollectiveReport Transport::report_for(const Collective& op) const {
  CollectiveReport report;
  report.name = op.name;
  report.group = name_;
  for (const auto& exchange : traffic(op, rank_)) {
    report.bytes_sent += exchange.sent;
    report.bytes_received += exchange.received;
  }
  report.launched_us = now_us();
  return report;
}

Pending Transport::all_to_all(at::Tensor rows, std::vector<int64_t> send_rows, std::vector<int64_t> recv_rows,
                              std::string name) {
  rows = as_rows(rows, *this, name);
  check_rows(send_rows, "send", *this, name);
  check_rows(recv_rows, "recv", *this, name);
  check_total(total(send_rows), rows.size(0), "send", *this, name);
  if (size_ == 1) check_total(recv_rows[0], send_rows[0], "recv", *this, name);
  return launch({CollectiveKind::all_to_all, std::move(name), rows, std::move(send_rows), std::move(recv_rows), 0, {}});
}

Pending Transport::reduce_scatter(at::Tensor rows, std::string name, std::vector<int64_t> rows_of_rank) {
  rows = as_rows(rows, *this, name);
  if (rows_of_rank.empty()) {
    if (rows.size(0) % size_ != 0)
      fail("{} on '{}': {} rows cannot be divided evenly over {} ranks; give the rows of each rank", name, name_,
           rows.size(0), size_);
    rows_of_rank.assign(size_, rows.size(0) / size_);
  }
  check_rows(rows_of_rank, "kept", *this, name);
  check_total(total(rows_of_rank), rows.size(0), "kept", *this, name);
  std::vector<int64_t> recv_rows(size_, rows_of_rank[rank_]);
  return launch(
      {CollectiveKind::reduce_scatter, std::move(name), rows, std::move(rows_of_rank), std::move(recv_rows), 0, {}});
}

Pending Transport::all_gather(at::Tensor rows, std::string name, std::vector<int64_t> rows_of_rank) {
  rows = as_rows(rows, *this, name);
  if (rows_of_rank.empty()) rows_of_rank.assign(size_, rows.size(0));
  check_rows(rows_of_rank, "contributed", *this, name);
  check_total(rows_of_rank[rank_], rows.size(0), "contributed", *this, name);
  std::vector<int64_t> send_rows(size_, rows.size(0));
  return launch(
      {CollectiveKind::all_gather, std::move(name), rows, std::move(send_rows), std::move(rows_of_rank), 0, {}});
}

namespace {

/// Gives the flattened result of a collective its shape back.
class Reshaped final : public InFlight {
 public:
  Reshaped(std::unique_ptr<InFlight> inner, std::vector<int64_t> shape)
      : inner_(std::move(inner)), shape_(std::move(shape)) {}
  at::Tensor finish(CollectiveReport& report) override { return inner_->finish(report).view(shape_); }
  bool ready() override { return inner_->ready(); }
  bool failed() override { return inner_->failed(); }

 private:
  std::unique_ptr<InFlight> inner_;
  std::vector<int64_t> shape_;
};

Pending reshaped(Pending pending, std::vector<int64_t> shape) {
  auto report = pending.report();
  return {std::make_unique<Reshaped>(pending.release(), std::move(shape)), std::move(report)};
}

}  // namespace

Pending Transport::all_reduce(at::Tensor value, std::string name) {
  if (!value.defined()) fail("{} on '{}': needs a tensor", name, name_);
  const auto shape = value.sizes().vec();
  const auto elements = value.detach().contiguous().view({-1});
  auto send_rows = divide_rows(elements.numel(), size_);
  std::vector<int64_t> recv_rows(size_, send_rows[rank_]);
  return reshaped(
      launch(
          {CollectiveKind::all_reduce, std::move(name), elements, std::move(send_rows), std::move(recv_rows), 0, {}}),
      shape);
}

Pending Transport::broadcast(at::Tensor value, int root, std::string name) {
  if (!value.defined()) fail("{} on '{}': needs a tensor of the root's shape on every rank", name, name_);
  if (root < 0 || root >= size_) fail("{} on '{}': root {} is not one of {} ranks", name, name_, root, size_);
  const auto shape = value.sizes().vec();
  const auto elements = value.detach().contiguous().view({-1});
  std::vector<int64_t> send_rows(size_, rank_ == root ? elements.numel() : 0);
  send_rows[root] = 0;
  std::vector<int64_t> recv_rows(size_, 0);
  if (rank_ != root) recv_rows[root] = elements.numel();
  return reshaped(
      launch(
          {CollectiveKind::broadcast, std::move(name), elements, std::move(send_rows), std::move(recv_rows), root, {}}),
      shape);
}

void Transport::barrier(std::string name) {
  Collective op;
  op.name = std::move(name);
  op.send_rows.assign(size_, 0);
  op.recv_rows.assign(size_, 0);
  launch(std::move(op)).await();
}

std::unique_ptr<Transport> World::all(const std::string& name) {
  std::vector<int> ranks(size());
  std::iota(ranks.begin(), ranks.end(), 0);
  return group(ranks, name);
}

int position_in(const std::vector<int>& ranks, const World& world, const std::string& name) {
  int own = -1;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (ranks[i] < 0 || ranks[i] >= world.size())
      fail("group '{}': rank {} is not one of {} ranks", name, ranks[i], world.size());
    if (i > 0 && ranks[i] <= ranks[i - 1])
      fail("group '{}': ranks must increase, but {} follows {}", name, ranks[i], ranks[i - 1]);
    if (ranks[i] == world.rank()) own = static_cast<int>(i);
  }
  if (own < 0) fail("group '{}': rank {} is not a member ({})", name, world.rank(), fmt::join(ranks, ","));
  return own;
}

std::unique_ptr<Transport> make_single(const std::string& name) { return std::make_unique<Single>(name); }

std::unique_ptr<World> wrap(std::unique_ptr<World> inner, TransportWrapper wrapper) {
  return std::make_unique<WrappedWorld>(std::move(inner), std::move(wrapper));
}

}  // namespace farskip
