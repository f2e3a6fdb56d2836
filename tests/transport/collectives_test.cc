// What collectives compute, on every transport: movement, sums in rank order, sub-groups.

#include <array>
#include <thread>

#include "ranks.h"
#include "transport/reduce.h"

namespace farskip {
namespace {

using testing::make_worlds;
using testing::noise;
using testing::same_bits;

class Collectives : public ::testing::TestWithParam<std::tuple<std::string, int>> {
 protected:
  std::string kind() const { return std::get<0>(GetParam()); }
  int num_ranks() const { return std::get<1>(GetParam()); }
  void run(const std::function<void(World&)>& body) {
    auto worlds = make_worlds(kind(), num_ranks(), {.timeout_s = 60});
    run_ranks(worlds, body);
  }
  /// Terms of all ranks, and their sum in rank order taken without any transport.
  std::vector<at::Tensor> terms(std::vector<int64_t> shape, at::ScalarType type) const {
    std::vector<at::Tensor> result;
    for (int r = 0; r < num_ranks(); ++r) result.push_back(noise(shape, r, type));
    return result;
  }
  at::Tensor expected_sum(const std::vector<at::Tensor>& terms) const {
    auto sum = terms[0].to(at::kFloat);
    for (size_t r = 1; r < terms.size(); ++r) sum = sum + terms[r].to(at::kFloat);
    return sum.to(terms[0].scalar_type());
  }
};

TEST_P(Collectives, AllToAllMovesUnevenRowsAndSkipsEmptyOnes) {
  // Rank s sends (s * d) % 3 rows to rank d: rank 0 sends and gets nothing at all.
  const auto rows_between = [](int s, int d) { return int64_t{(s * d) % 3}; };
  run([&](World& world) {
    const auto group = world.all();
    for (const auto type : {at::kFloat, at::kBFloat16, at::kLong, at::kBool}) {
      std::vector<int64_t> send, recv;
      std::vector<at::Tensor> sent, expected;
      for (int r = 0; r < world.size(); ++r) {
        send.push_back(rows_between(world.rank(), r));
        recv.push_back(rows_between(r, world.rank()));
        sent.push_back(at::full({send.back(), 5}, 10 * world.rank() + r).to(type));
        expected.push_back(at::full({recv.back(), 5}, 10 * r + world.rank()).to(type));
      }
      auto got = group->all_to_all(at::cat(sent), send, recv, "rows").await();
      EXPECT_TRUE(same_bits(got, at::cat(expected))) << "rank " << world.rank();
    }
  });
}

TEST_P(Collectives, ReductionsAreTheSumInRankOrder) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const auto even = terms({4 * num_ranks(), 7}, type);
    const auto odd = terms({13, 3}, type);
    const auto even_sum = expected_sum(even);
    const auto odd_sum = expected_sum(odd);
    run([&](World& world) {
      const auto group = world.all();
      const int r = world.rank();
      auto scattered = group->reduce_scatter(even[r], "scatter");
      auto all = group->all_reduce(odd[r], "all");
      EXPECT_TRUE(same_bits(all.await(), odd_sum));
      EXPECT_TRUE(same_bits(scattered.await(), even_sum.narrow(0, 4 * r, 4)));
      const auto rows = divide_rows(13, world.size());
      const auto part = group->reduce_scatter(odd[r], "uneven", rows).await();
      EXPECT_TRUE(same_bits(part, odd_sum.narrow(0, offsets_of(rows)[r], rows[r])));
      EXPECT_EQ(group->all_reduce(at::full({}, int64_t{r} + 1), "count").await().item<int64_t>(),
                world.size() * (world.size() + 1) / 2);
    });
  }
}

TEST(RankOrder, IsNotAnyOrder) {  // the control: with other orders the test above would fail
  const auto a = noise({1000}, 0), b = noise({1000}, 1), c = noise({1000}, 2);
  auto forward = at::empty({1000}), reversed = at::empty({1000});
  sum_in_rank_order({a, b, c}, forward);
  sum_in_rank_order({c, b, a}, reversed);
  EXPECT_FALSE(at::equal(forward, reversed));
  EXPECT_TRUE(at::allclose(forward, reversed, 1e-3, 1e-3));
}

TEST_P(Collectives, GatherAndBroadcast) {
  run([&](World& world) {
    const auto group = world.all();
    const int r = world.rank();
    std::vector<int64_t> rows;
    std::vector<at::Tensor> parts;
    for (int p = 0; p < world.size(); ++p) {
      rows.push_back(p);  // rank 0 contributes nothing
      parts.push_back(noise({p, 4}, p, at::kBFloat16));
    }
    EXPECT_TRUE(same_bits(group->all_gather(parts[r], "uneven", rows).await(), at::cat(parts)));
    EXPECT_EQ(group->all_gather(at::full({1, 2}, r), "even").await().size(0), world.size());
    const int root = world.size() - 1;
    EXPECT_TRUE(same_bits(group->broadcast(noise({2, 3}, r), root, "weights").await(), noise({2, 3}, root)));
    group->barrier();
  });
}

TEST_P(Collectives, SubGroupsAreIndependent) {
  if (num_ranks() < 4) GTEST_SKIP() << "needs four ranks";
  run([&](World& world) {
    const int r = world.rank();
    const std::vector<int> near = r < 2 ? std::vector{0, 1} : std::vector{2, 3};
    const std::vector<int> across = {r % 2, r % 2 + 2};
    const auto expert = world.group(near, "expert");
    const auto expert_data = world.group(across, "expert_data");
    const auto own = world.group({r}, "own");
    EXPECT_EQ(expert->rank(), r % 2);
    EXPECT_EQ(expert_data->rank(), r / 2);
    EXPECT_EQ(own->size(), 1);
    auto a = expert->all_reduce(at::full({1}, 1 << r), "a");
    auto b = expert_data->all_reduce(at::full({1}, 1 << r), "b");
    EXPECT_EQ(b.await().item<int>(), (1 << across[0]) + (1 << across[1]));
    EXPECT_EQ(a.await().item<int>(), (1 << near[0]) + (1 << near[1]));
    EXPECT_THROW(world.group({r, r}, "twice"), Error);
    EXPECT_THROW(world.group({(r + 1) % 4}, "stranger"), Error);
  });
}

TEST(Loopback, ARankMayAskForManyGroupsBeforeItsPeer) {
  const auto worlds = make_loopback(2, {.timeout_s = 30});
  std::vector<std::unique_ptr<Transport>> groups[2];
  for (const int r : {0, 1})  // the same name three times, all of rank 0 first
    for (int i = 0; i < 3; ++i) groups[r].push_back(worlds[r]->group({0, 1}, "expert"));
  for (int i = 2; i >= 0; --i) {
    auto a = groups[0][i]->all_reduce(at::full({1}, 1 << i), "sum");
    auto b = groups[1][i]->all_reduce(at::full({1}, 1 << i), "sum");
    std::thread peer([&] { EXPECT_EQ(a.await().item<int>(), 2 << i); });
    EXPECT_EQ(b.await().item<int>(), 2 << i);
    peer.join();
  }
}

TEST_P(Collectives, InputIsFreeAfterAwait) {
  run([&](World& world) {
    const auto group = world.all();
    for (int step = 0; step < 50; ++step) {
      auto rows = at::full({world.size(), 64}, step + world.rank());
      const std::vector<int64_t> one(world.size(), 1);
      const auto got = group->all_to_all(rows, one, one, "step").await();
      if (world.size() == 1) {
        EXPECT_TRUE(got.is_alias_of(rows)) << "alone, nothing is copied";
        return;
      }
      rows.fill_(-1);
      for (int p = 0; p < world.size(); ++p) ASSERT_TRUE(got[p].eq(step + p).all().item<bool>()) << step;
    }
  });
}

TEST_P(Collectives, MayBeAwaitedInAnyOrderAndReport) {
  run([&](World& world) {
    const auto group = world.all();
    std::vector<Pending> pending;
    for (int i = 0; i < 5; ++i) pending.push_back(group->all_reduce(at::full({1000}, i), "sum" + std::to_string(i)));
    for (int i = 4; i >= 0; --i) {
      CollectiveReport report;
      EXPECT_EQ(pending[i].await(&report)[0].item<int>(), i * world.size());
      EXPECT_EQ(report.name, "sum" + std::to_string(i));
      EXPECT_EQ(report.group, "world");
      EXPECT_LE(report.launched_us, report.completed_us);
      EXPECT_GE(report.waited_us, 0);
      if (1000 % world.size() != 0) continue;
      const int64_t elements_to_others = 1000 - 1000 / world.size();  // and as many back, in each of the two exchanges
      EXPECT_EQ(report.bytes_sent, 2 * 8 * elements_to_others);
      EXPECT_EQ(report.bytes_received, 2 * 8 * elements_to_others);
    }
  });
}

TEST_P(Collectives, RefuseWhatCannotBe) {
  run([&](World& world) {
    const auto group = world.all();
    const std::vector<int64_t> one(world.size(), 1), two(world.size(), 2);
    const auto rows = at::zeros({world.size(), 2});
    EXPECT_THROW(group->all_to_all(rows, two, two, "sums"), Error);
    EXPECT_THROW(group->all_to_all(rows, {}, one, "counts"), Error);
    EXPECT_THROW(group->all_to_all(rows.t(), one, one, "strides"), Error);
    EXPECT_THROW(group->broadcast(rows, world.size(), "root"), Error);
    EXPECT_TRUE(same_bits(group->all_to_all(rows, one, one, "fine").await(), rows)) << "refusals are not failures";
  });
}

INSTANTIATE_TEST_SUITE_P(Transports, Collectives,
                         ::testing::Combine(::testing::Values("loopback", "gloo"), ::testing::Values(1, 2, 4)),
                         [](const auto& info) {
                           return std::get<0>(info.param) + std::to_string(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace farskip
