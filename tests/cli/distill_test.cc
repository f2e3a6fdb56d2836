// farskip distill as a user meets it.

#include <fmt/format.h>

#include <map>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using testing::run_farskip;

class DistillCommand : public testing::TinyTraining {
 protected:
  void SetUp() override {
    TinyTraining::SetUp();
    if (IsSkipped()) return;
    const auto made = run_farskip(train("train_iters=80 split=90,10,0 export=" + folder / "teacher"));
    ASSERT_EQ(made.status, 0) << made.err;
    std::ofstream(folder / "distill.yaml") << "teacher: " << folder / "teacher"
                                           << "\ndata_path: " << folder / "data_text_document"
                                           << "\nsplit: 90,10,0\nseq_length: 32\nmicro_batch_size: 2\n"
                                              "global_batch_size: 8\ntrain_iters: 20\nlr: 3.0e-3\neval_interval: 10\n"
                                              "eval_iters: 4\nlog_interval: 5\n";
  }
  testing::ProgramResult distill(const std::string& settings) const {
    return run_farskip("distill " + folder / "distill.yaml" + " " + settings);
  }
  nlohmann::json result(const std::string& settings) {
    last = distill(settings + " result=" + folder / "result.json");
    EXPECT_EQ(last.status, 0) << settings << "\n" << last.err;
    return nlohmann::json::parse(read_file(folder / "result.json"));
  }
  std::string weights(const std::string& checkpoint) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder / checkpoint)) {
      const std::string name = entry.path().filename();
      if (name.ends_with(".safetensors")) files[name] = read_file(entry.path().string());
    }
    std::string all;
    for (const auto& [name, bytes] : files) all += name + bytes;
    return all;
  }
};

TEST_F(DistillCommand, RepairsAConvertedModel) {
  const auto found = result("export=" + folder / "student" + " log_file=" + folder / "log.jsonl" +
                            " report=" + folder / "report.html");
  EXPECT_THAT(last.err, HasSubstr("layer 0 is dense"));
  EXPECT_EQ(found["connectivity"], "last=2");
  EXPECT_EQ(found["teacher_connectivity"], "standard");
  EXPECT_EQ(found["steps"], 20);
  EXPECT_EQ(found["tokens"], 20 * 8 * 32);
  EXPECT_EQ(found["calibration"], nullptr);
  const auto& held_out = found["held_out"];
  EXPECT_EQ(held_out["initial"]["iteration"], 0);
  EXPECT_EQ(held_out["last"]["iteration"], 20);
  EXPECT_GT(held_out["initial"]["kl"], 0.001);
  EXPECT_LT(held_out["best"]["kl"], 0.6 * held_out["initial"]["kl"].get<double>());
  EXPECT_EQ(held_out["last"]["tokens"], 4 * 8 * 32);
  EXPECT_EQ(held_out["last"]["router_drift_of_layers"].size(), 2u) << "one figure for each MoE layer";
  EXPECT_EQ(held_out["last"]["teacher_cross_entropy"], held_out["initial"]["teacher_cross_entropy"]);
  const auto steps_of_log = steps(folder / "log.jsonl");
  ASSERT_EQ(steps_of_log.size(), 20u);
  EXPECT_EQ(steps_of_log[3]["kl"], steps_of_log[3]["lm_loss"]) << "nothing but the KL, unless the recipe says more";
  EXPECT_THAT(read_file(folder / "report.html"), HasSubstr("KL to the teacher"));

  const auto inspected = run_farskip("inspect " + folder / "student");
  EXPECT_THAT(inspected.out, HasSubstr("last=2")) << inspected.err;
  EXPECT_EQ(run_farskip("generate " + folder / "student" + " --prompt The --max-tokens 4").status, 0);
  // A student is a checkpoint like any other, that runs its own graph: it goes on under it, or not at all.
  const auto other = distill("load=" + folder / "student" + " connectivity=farskip");
  EXPECT_EQ(other.status, 1);
  EXPECT_THAT(other.err, HasSubstr("connectivity belongs to the weights"));
  const auto swapped = distill("teacher=" + folder / "student" + " load=" + folder / "teacher");
  EXPECT_EQ(swapped.status, 1);
  EXPECT_THAT(swapped.err, HasSubstr("the pair exchanged"));
  EXPECT_EQ(distill("load=" + folder / "student" + " train_iters=2").status, 0);
}

TEST_F(DistillCommand, OfChatsTheAnswersCount) {
  std::ofstream chats(folder / "chat.jsonl");
  for (int i = 0; i < 300; ++i) {
    const std::string asked = fmt::format("What comes next to number {} of the lazy dogs?", i);
    chats << nlohmann::json{{"messages",
                             {{{"role", "user"}, {"content", asked}},
                              {{"role", "assistant"}, {"content", fmt::format("The fox {}.", i + 1)}}}}}
          << "\n";
  }
  chats.close();
  const auto prepared = run_farskip("prepare " + folder / "chat.jsonl" + " -o " + folder / "chat" + " --format chat");
  ASSERT_EQ(prepared.status, 0) << prepared.err;
  const auto found = result("data_path=" + folder / "chat_text_document");
  const auto &initial = found["held_out"]["initial"], &best = found["held_out"]["best"];
  // Of about 75 tokens of a conversation a fifth.
  EXPECT_GT(initial["tokens"], 0.1 * 4 * 8 * 32);
  EXPECT_LT(initial["tokens"], 0.3 * 4 * 8 * 32);
  EXPECT_LT(best["kl"], 0.8 * initial["kl"].get<double>());
}

TEST_F(DistillCommand, CalibrationComesFirstWhereAskedFor) {
  const auto plain = result("train_iters=0");
  const auto& untouched = plain["held_out"]["initial"];
  for (const std::string& text : {folder / "text.txt", folder / "data_text_document"}) {
    const auto found = result("train_iters=0 calibrate=" + text + " export=" + folder / "fitted");
    EXPECT_EQ(found["calibration"]["accepted"], true);
    EXPECT_LT(found["calibration"]["kl_after"], found["calibration"]["kl_before"]);
    EXPECT_LT(found["held_out"]["initial"]["kl"], untouched["kl"]);
  }
  const auto trained = result("calibrate=true calibrate_tokens=2048 lr=1.0e-4 --nproc 2 layout=ep=2");
  EXPECT_EQ(trained["calibration"]["accepted"], true);
  EXPECT_LT(trained["held_out"]["initial"]["kl"], untouched["kl"]);
  EXPECT_LT(trained["held_out"]["best"]["kl"], trained["held_out"]["initial"]["kl"]);
}

TEST_F(DistillCommand, GoesOnWithTheSameBits) {
  const std::string run = "--nproc 2 layout=ep=2 lr_decay_iters=20 hidden_weight=0.1 hidden_decay_iters=15 save=";
  ASSERT_EQ(distill(run + folder / "whole").status, 0);
  ASSERT_EQ(distill(run + folder / "parts" + " train_iters=10").status, 0);
  last = distill(run + folder / "parts" + " auto_resume=true");
  ASSERT_EQ(last.status, 0) << last.err;
  EXPECT_THAT(last.err, HasSubstr("going on from iteration 10"));
  EXPECT_EQ(weights("parts/iter_0000020"), weights("whole/iter_0000020"));
  EXPECT_NE(weights("parts/iter_0000010"), weights("whole/iter_0000020"));
  EXPECT_EQ(weights("parts/best"), weights("whole/best"));

  ASSERT_EQ(run_farskip(train("train_iters=2 export=" + folder / "other")).status, 0);
  const auto refused = distill(run + folder / "parts" + " auto_resume=true teacher=" + folder / "other");
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("taught by other weights than those of teacher="));
}

TEST_F(DistillCommand, EndsWhereItNoLongerLearns) {
  const auto found = result("train_iters=200 eval_interval=5 patience=2 lr=0 min_lr=0 export=" + folder / "student");
  EXPECT_EQ(found["stopped_early"], true);
  EXPECT_EQ(found["steps"], 10) << "two evaluations after the first that were no better";
  EXPECT_THAT(last.err, HasSubstr("has not fallen below"));
}

/// A run whose learning rate is absurd for two steps in the middle, and sensible before and afterwards.
TEST_F(DistillCommand, AGuardedRunOutlivesACollapse) {
  const auto collapsing = [&](const std::string& name, const std::string& guard) {
    const std::string run =
        "guard_window=6 guard_patience=3 keep_best=false save_interval=5 " + guard + " save=" + folder / name;
    EXPECT_EQ(distill(run + " train_iters=10 lr_decay_iters=1000").status, 0);
    return result(run +
                  " train_iters=40 auto_resume=true clip_grad=0 lr=20 min_lr=1.0e-3 lr_warmup_iters=0 "
                  "lr_decay_iters=13");
  };
  const auto unguarded = collapsing("unguarded", "loss_spike_factor=0 grad_spike_factor=0");
  const auto& ruined = unguarded["held_out"];
  EXPECT_EQ(unguarded["steps_skipped"], 0);
  EXPECT_GT(ruined["last"]["kl"], ruined["initial"]["kl"]) << "the run is made to collapse";

  const auto guarded = collapsing("guarded", "loss_spike_factor=2");
  EXPECT_GT(guarded["steps_skipped"], 2);
  EXPECT_EQ(guarded["roll_backs"], 1);
  EXPECT_LT(guarded["held_out"]["last"]["kl"], guarded["held_out"]["initial"]["kl"]);
  EXPECT_LT(guarded["held_out"]["last"]["kl"], 0.5 * ruined["last"]["kl"].get<double>());
}

TEST_F(DistillCommand, ACachedTeacherIsTheTeacher) {
  const std::string cache = " teacher_cache=" + folder / "cache" + " top_k=";
  const auto beside = result(""), cached = result("log_file=" + folder / "first.jsonl" + cache + "320");
  EXPECT_THAT(last.err, HasSubstr("parts of 256 samples of train to be computed"));
  for (const char* when : {"initial", "last"}) {
    const double kl = beside["held_out"][when]["kl"], other = cached["held_out"][when]["kl"];
    EXPECT_NEAR(other, kl, 0.01 * kl) << "all tokens of the vocabulary are kept";
    EXPECT_EQ(cached["held_out"][when].count("router_drift"), 0u) << "no cache knows the teacher's experts";
  }
  // Again, from what is there; and where a part is damaged.
  const auto again = [&] {
    result("log_file=" + folder / "again.jsonl" + cache + "320");
    EXPECT_EQ(digits(folder / "again.jsonl"), digits(folder / "first.jsonl"));
  };
  again();
  EXPECT_THAT(last.err, ::testing::Not(HasSubstr("to be computed")));
  {
    std::fstream part(folder / "cache/train-0000000000.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    part.seekp(-3, std::ios::end);
    part.put(77);
  }
  again();
  EXPECT_THAT(last.err, HasSubstr("it is computed again"));
  for (const auto& [settings, text] : std::vector<std::pair<std::string, std::string>>{
           {"320 temperature=2", "made with another temperature"},
           {"320 seq_length=16", "made with another seq_length"},
           {"64", "made with another top_k"},
           {"320 teacher=" + folder / "other", "another teacher's weights"},
           {"320 split=50,50,0", "is of other data"},
           {"320 hidden_weight=1", "reads the teacher's inner values"}}) {
    if (settings.find("other") != std::string::npos) {
      ASSERT_EQ(run_farskip(train("train_iters=2 export=" + folder / "other")).status, 0);
    }
    const auto refused = distill("teacher_cache=" + folder / "cache" + " top_k=" + settings);
    EXPECT_EQ(refused.status, 1) << settings;
    EXPECT_THAT(refused.err, HasSubstr(text)) << settings;
  }
  // A part of the distribution, on two ranks that fill the cache together.
  const std::string few = " teacher_cache=" + folder / "few" + " top_k=8 top_k_samples=8";
  const auto drawn = result("--nproc 2 layout=ep=2" + few), same = result("layout=ep=1" + few);
  EXPECT_LT(drawn["held_out"]["best"]["kl"], 0.8 * drawn["held_out"]["initial"]["kl"].get<double>());
  EXPECT_NEAR(drawn["held_out"]["last"]["kl"], same["held_out"]["last"]["kl"].get<double>(), 1e-3);
}

TEST_F(DistillCommand, TheFrontierJoinsQualityWithTime) {
  write_file(folder / "fast.json", R"({"like": "h100", "name": "fast", "link_bytes_per_s": 1e9})");
  const std::string run =
      "--nproc 2 layout=ep=2 --frontier --rounds 6 --connectivities 'standard last=1 last=2' -o " + folder / "frontier";
  last = distill(run + " --machine " + folder / "fast.json");
  ASSERT_EQ(last.status, 0) << last.err;
  EXPECT_THAT(last.out, HasSubstr("fast, ms"));
  EXPECT_THAT(read_file(folder / "frontier/frontier.html"), HasSubstr("simulated on fast"));
  const auto found = nlohmann::json::parse(read_file(folder / "frontier/frontier.json"));
  const auto& points = found["points"];
  ASSERT_EQ(points.size(), 3u) << "the teacher's own connectivity is not distilled";
  EXPECT_EQ(points[0]["connectivity"], "standard");
  EXPECT_EQ(points[0]["excess"], 0);
  EXPECT_EQ(points[0]["machine_speedup"], 1);
  for (const size_t i : {1, 2}) {
    const auto& point = points[i];
    EXPECT_LE(point["held_out"]["best"]["kl"], point["held_out"]["initial"]["kl"]);
    EXPECT_NEAR(point["machine_speedup"],
                points[0]["machine_step_ms"].get<double>() / point["machine_step_ms"].get<double>(), 1e-12);
    EXPECT_GT(point["machine_speedup"], 1) << "on a slow link what is converted hides more";
    EXPECT_GT(point["bench"]["t_overlapped"]["value"], 0);
  }
  EXPECT_LT(points[2]["held_out"]["best"]["kl"], points[2]["held_out"]["initial"]["kl"]);
  EXPECT_GE(points[2]["machine_speedup"], points[1]["machine_speedup"]);
  EXPECT_EQ(run_farskip("inspect " + folder / "frontier/last-2").status, 0);

  EXPECT_THAT(distill(run + " --machine abacus").err, HasSubstr("not a known machine"));
  EXPECT_THAT(distill(run + " connectivity=last=1").err, HasSubstr("leave connectivity"));
  EXPECT_EQ(distill("--frontier").status, 2) << "no folder to write to";
}

TEST_F(DistillCommand, SaysWhatIsWrong) {
  const auto refused = [&](const std::string& settings, const std::string& text) {
    const auto made = distill(settings);
    EXPECT_EQ(made.status, 1) << settings;
    EXPECT_THAT(made.err, HasSubstr(text)) << settings;
  };
  refused("teacher=", "teacher is not given");
  refused("temperatur=2", "did you mean \"temperature\"?");
  refused("temperature=0", "a number > 0 was expected");
  refused("teacher=" + folder / "nowhere", "no folder with a config.json");
  refused("model=small-moonlight", "leave model out");
  refused("connectivity=standard", "there is nothing to learn");
  refused("teacher_connectivity=farskip", "its weights were trained with connectivity standard");
  refused("top_k=4", "is for a cache");
  refused("teacher_cache=" + folder / "cache", "say how much");
  refused("patience=2 eval_interval=0", "nothing is evaluated on the way");
  refused("calibrate=true calibrate_tokens=32", "at least two each are needed");
  const auto settings = run_farskip("distill --help-settings");
  EXPECT_EQ(settings.status, 0);
  EXPECT_THAT(settings.out, HasSubstr("cross_entropy_weight"));
  EXPECT_THAT(distill("--dry-run --nproc 2 layout=ep=2").out, HasSubstr("teacher"));
}

}  // namespace
}  // namespace farskip
