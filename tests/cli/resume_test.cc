// Checkpoints as a user meets them: a run that was interrupted and goes on ends with the bits of one that was not, on
// any number of ranks, and damage costs no more than the steps since the checkpoint before.

#include <fmt/format.h>
#include <signal.h>

#include <map>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::run_farskip;
using testing::RunningProgram;
using testing::wait_until;
namespace fs = std::filesystem;

class Resume : public testing::TinyTraining {
 protected:
  static constexpr const char* run = "connectivity=farskip layout=ep=2 --nproc 2 train_iters=60 save_interval=10 ";

  std::string saving(const std::string& name, const std::string& more = "") const {
    return train(fmt::format("{} save={} {}", run, folder / name, more));
  }
  void complete(const std::string& name, const std::string& more = "") {
    last = run_farskip(saving(name, more));
    ASSERT_EQ(last.status, 0) << last.err;
  }
  std::string iteration(const std::string& name, int i) const { return folder / fmt::format("{}/iter_{:07}", name, i); }

  /// The tensors' files of a checkpoint, by name.
  std::map<std::string, std::string> tensors(const std::string& checkpoint) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(checkpoint)) {
      const std::string name = entry.path().filename();
      if (name.ends_with(".safetensors")) files[name] = read_file(entry.path().string());
    }
    return files;
  }
  std::vector<std::string> checkpoints(const std::string& name) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder / name)) {
      if (entry.is_directory()) names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  /// Starts the run, and sends `signal` when the checkpoint of iteration 10 is there.
  std::unique_ptr<RunningProgram> interrupted(const std::string& name, int signal, const std::string& more = "") {
    auto program = std::make_unique<RunningProgram>(saving(name, more), folder / "program");
    EXPECT_TRUE(wait_until(60, [&] { return fs::exists(iteration(name, 10)); })) << program->err();
    program->send(signal);
    return program;
  }
  void flip_a_byte(const std::string& path) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-5, std::ios::end);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(-5, std::ios::end);
    file.put(byte);
  }
};

TEST_F(Resume, AKilledRunGoesOnWithTheSameBits) {
  complete("whole", "log_file=" + folder / "whole.jsonl");
  EXPECT_EQ(read_file(folder / "whole/latest_checkpointed_iteration.txt"), "60\n");
  EXPECT_EQ(checkpoints("whole"), (std::vector<std::string>{"iter_0000050", "iter_0000060"}));
  const auto expected = tensors(iteration("whole", 60));
  EXPECT_EQ(expected.size(), 4u) << "two ranks write weights and moments each";

  const std::string log = " log_file=" + folder / "killed.jsonl";
  interrupted("killed", SIGKILL, log)->wait(10);
  complete("killed", "auto_resume=true" + log);
  EXPECT_THAT(last.err, HasSubstr("going on from iteration "));
  EXPECT_EQ(tensors(iteration("killed", 60)), expected);
  EXPECT_EQ(digits(folder / "killed.jsonl"), digits(folder / "whole.jsonl")) << "one log, each step once";
  EXPECT_EQ(checkpoints("killed").size(), 2u) << "nothing half-written is left";

  // Another run has other bits: what is compared can differ.
  complete("other", "seed=7");
  EXPECT_NE(tensors(iteration("other", 60)), expected);
}

TEST_F(Resume, SignalsAskForACheckpoint) {
  complete("whole");
  auto ended = interrupted("ended", SIGTERM);
  EXPECT_EQ(ended->wait(20), 0) << ended->err();
  EXPECT_THAT(ended->err(), HasSubstr("asked to end: saved iteration "));
  const int64_t at = std::stol(read_file(folder / "ended/latest_checkpointed_iteration.txt"));
  EXPECT_LT(at, 60);
  complete("ended", "auto_resume=true");
  EXPECT_THAT(last.err, HasSubstr(fmt::format("going on from iteration {} ", at)));
  EXPECT_EQ(tensors(iteration("ended", 60)), tensors(iteration("whole", 60)));

  // To the launcher of processes; SIGUSR1 ends nothing.
  RunningProgram program(
      train(
          fmt::format("connectivity=farskip layout=ep=2 transport=gloo --nproc 2 train_iters=5000 save={} log_file={}",
                      folder / "asked", folder / "asked.jsonl")),
      folder / "program");
  ASSERT_TRUE(wait_until(60, [&] {
    return fs::exists(folder / "asked.jsonl") && fs::file_size(folder / "asked.jsonl") > 500;
  })) << program.err();
  program.send(SIGUSR1);
  ASSERT_TRUE(wait_until(30, [&] { return fs::exists(folder / "asked/latest_checkpointed_iteration.txt"); }))
      << program.err();
  const auto size = fs::file_size(folder / "asked.jsonl");
  EXPECT_TRUE(wait_until(30, [&] { return fs::file_size(folder / "asked.jsonl") > size + 500; })) << "it goes on";
  const std::string first = read_file(folder / "asked/latest_checkpointed_iteration.txt");
  program.send(SIGTERM);
  EXPECT_EQ(program.wait(30), 128 + SIGTERM) << program.err();
  EXPECT_GT(std::stol(read_file(folder / "asked/latest_checkpointed_iteration.txt")), std::stol(first));
}

TEST_F(Resume, AnyNumberOfRanksTakesTheCheckpoint) {
  complete("two", "export=" + folder / "two_model");
  for (const std::string ranks :
       {"--nproc 1", "layout=dp=2 --nproc 2", "layout=ep=2,dp=2 --nproc 4 micro_batch_size=1"}) {
    // Nothing left to do: what was read is what is exported.
    const std::string model = folder / "again";
    fs::remove_all(model);
    last = run_farskip(train(fmt::format("train_iters=60 load={} export={} {}", folder / "two", model, ranks)));
    ASSERT_EQ(last.status, 0) << last.err;
    EXPECT_EQ(read_file(model + "/model.safetensors"), read_file(folder / "two_model/model.safetensors")) << ranks;
    // And the moments are the same numbers too, or the steps to come would differ more than sums in another order do.
    const auto here = losses(trained(fmt::format("train_iters=64 load={} {}", folder / "two", ranks)));
    const auto there = losses(trained(fmt::format("train_iters=64 load={} layout=ep=2 --nproc 2", folder / "two")));
    ASSERT_EQ(here.size(), 4u);
    for (size_t i = 0; i < here.size(); ++i) EXPECT_NEAR(here[i], there[i], 1e-4) << ranks << " step " << i;
  }
  // A control: weights without moments give other steps.
  const auto without =
      losses(trained(fmt::format("train_iters=64 load={} finetune=true layout=ep=2 --nproc 2", folder / "two")));
  EXPECT_EQ(without.size(), 64u) << "a new run";
}

TEST_F(Resume, OptimizersThatAreSharedOutGoOnAnywhere) {
  for (const std::string dtype : {"fp32", "bf16"}) {
    SCOPED_TRACE(dtype);
    const std::string shared = fmt::format("dtype={} use_distributed_optimizer=true", dtype);
    const std::string name = "shared_" + dtype;
    complete(name, shared + " export=" + folder / (name + "_model"));
    const auto expected = tensors(iteration(name, 60));

    // A run that is killed and goes on; its weights are those of a run whose optimizers are whole.
    interrupted(name + "_killed", SIGKILL, shared)->wait(10);
    complete(name + "_killed", "auto_resume=true " + shared);
    EXPECT_EQ(tensors(iteration(name + "_killed", 60)), expected);

    // At another number of ranks and with whole optimizers, from either kind of checkpoint.
    complete("whole_" + dtype, "dtype=" + dtype);
    std::vector<std::vector<double>> next;
    for (const std::string& from : {name, "whole_" + dtype}) {
      for (const char* to : {"layout=ep=2 --nproc 2", "layout=ep=2 use_distributed_optimizer=true --nproc 2"}) {
        next.push_back(losses(trained(fmt::format("train_iters=64 dtype={} load={} {}", dtype, folder / from, to))));
        EXPECT_EQ(next.back(), next.front()) << from << " " << to;
      }
      const auto elsewhere =
          losses(trained(fmt::format("train_iters=64 dtype={} load={} layout=ep=2,dp=2 use_distributed_optimizer=true "
                                     "micro_batch_size=1 --nproc 4",
                                     dtype, folder / from)));
      ASSERT_EQ(elsewhere.size(), 4u);
      for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(elsewhere[i], next.front()[i], dtype == "fp32" ? 1e-4 : 2e-2);
    }
  }
}

TEST_F(Resume, FrozenWeightsHaveNoOptimizerStateInIt) {
  for (const std::string more : {"dtype=bf16", "dtype=bf16 use_distributed_optimizer=true"}) {
    SCOPED_TRACE(more);
    const std::string frozen = more + " 'freeze=*.mlp.experts.* *embed_tokens*'";
    const std::string name = "frozen" + std::to_string(more.size());
    complete(name, frozen);
    const std::string index = read_file(iteration(name, 60) + "/optimizer.safetensors.index.json");
    EXPECT_THAT(index, HasSubstr("exp_avg_sq.model.layers.1.self_attn.o_proj.weight"));
    EXPECT_THAT(index, Not(HasSubstr("exp_avg.model.embed_tokens")));
    EXPECT_THAT(index, Not(ContainsRegex("(exp_avg(_sq)?|main).model.layers.1.mlp.experts")));

    interrupted(name + "_killed", SIGKILL, frozen)->wait(10);
    complete(name + "_killed", "auto_resume=true " + frozen);
    EXPECT_EQ(tensors(iteration(name + "_killed", 60)), tensors(iteration(name, 60)));

    // Thawed, they begin without; frozen later, moments are left behind.
    const std::string on = train(fmt::format("{} load={} train_iters=62 layout=ep=2 --nproc 2", more, folder / name));
    last = run_farskip(on);
    ASSERT_EQ(last.status, 0) << last.err;
    EXPECT_THAT(last.err, HasSubstr("tensors have no moments there, they were frozen; theirs begin at 0"));
    last = run_farskip(on + " 'freeze=*.self_attn.*'");
    ASSERT_EQ(last.status, 0) << last.err;
    // Masters of fp32 lie in the folder where nothing is shared out.
    const bool finer = last.err.find("frozen tensors are of a finer type there than `dtype`") != std::string::npos;
    EXPECT_EQ(finer, more == "dtype=bf16") << last.err;
  }
}

TEST_F(Resume, DamageIsFoundAndTheCheckpointBeforeTaken) {
  complete("run", "keep_checkpoints=3");
  const auto expected = tensors(iteration("run", 60));
  const std::string newest = iteration("run", 60);
  flip_a_byte(newest + "/optimizer-00002-of-00002.safetensors");
  last = run_farskip(saving("run", "auto_resume=true keep_checkpoints=3"));
  ASSERT_EQ(last.status, 0) << last.err;
  EXPECT_THAT(last.err, HasSubstr("iter_0000060: not used: "));
  EXPECT_THAT(last.err, HasSubstr("optimizer-00002-of-00002.safetensors was altered: its SHA-256 is"));
  EXPECT_THAT(last.err, HasSubstr("going on from iteration 50"));
  EXPECT_EQ(tensors(newest), expected) << "the damaged one was written anew";

  fs::resize_file(newest + "/model-00001-of-00002.safetensors", 100);
  fs::remove(iteration("run", 50) + "/training_state.json");
  last = run_farskip(saving("run", "auto_resume=true keep_checkpoints=3"));
  ASSERT_EQ(last.status, 0) << last.err;
  EXPECT_THAT(last.err, HasSubstr("model-00001-of-00002.safetensors has 100 bytes instead of"));
  EXPECT_THAT(last.err, HasSubstr("training_state.json"));
  EXPECT_THAT(last.err, HasSubstr("going on from iteration 40"));
  EXPECT_EQ(tensors(newest), expected);

  for (const auto& name : checkpoints("run"))
    fs::remove(folder / ("run/" + name + "/model-00002-of-00002.safetensors"));
  last = run_farskip(saving("run", "auto_resume=true"));
  EXPECT_EQ(last.status, 1);
  EXPECT_THAT(last.err, HasSubstr("none of its checkpoints is sound"));
}

TEST_F(Resume, WhatCannotBeContinuedIsRefused) {
  complete("run");
  const std::pair<std::string, std::string> cases[] = {
      {"",
       "the folder holds checkpoints, the newest " + iteration("run", 60) + "; go on from them with auto_resume=true"},
      {"load=" + folder / "model", "the folder holds checkpoints"},
      {"auto_resume=true global_batch_size=16", "saved with global_batch_size=8, the recipe says 16"},
      {"auto_resume=true seed=3", "saved with seed=1234, the recipe says 3"},
      {"auto_resume=true seq_length=16", "saved with seq_length=32, the recipe says 16"},
  };
  for (const auto& [settings, message] : cases) {
    last = run_farskip(saving("run", settings));
    EXPECT_EQ(last.status, 1) << settings;
    EXPECT_THAT(last.err, HasSubstr(message)) << settings;
  }
  EXPECT_THAT(run_farskip(train("auto_resume=true")).err, HasSubstr("auto_resume = true without save"));
  write_file(folder / "run/latest_checkpointed_iteration.txt", "soon\n");
  EXPECT_THAT(run_farskip(saving("run", "auto_resume=true")).err, HasSubstr("\"soon\n\" is not an iteration"));
}

TEST_F(Resume, AnyCheckpointIsAHuggingFaceFolder) {
  complete("run", "export=" + folder / "exported");
  const std::string prompt = " --prompt 'The quick' --max-tokens 12";
  const auto exported = run_farskip("generate " + folder / "exported" + prompt);
  ASSERT_EQ(exported.status, 0) << exported.err;
  EXPECT_EQ(run_farskip("generate " + folder / "run" + prompt).out, exported.out);
  EXPECT_EQ(run_farskip("generate " + iteration("run", 60) + prompt).out, exported.out);
  EXPECT_NE(run_farskip("generate " + iteration("run", 50) + prompt).status, -1);
}

}  // namespace
}  // namespace farskip
