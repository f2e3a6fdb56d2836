// Training on more than one plain text: blends, parts given apart, chats with a loss mask.

#include <fmt/format.h>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;
using testing::run_farskip;

class Data : public testing::TinyTraining {
 protected:
  void SetUp() override {
    TinyTraining::SetUp();
    if (IsSkipped()) return;
    std::ofstream text(folder / "other.txt"), chat(folder / "chat.jsonl");
    for (int i = 0; i < 300; ++i) {
      text << "Other words, line " << i << ", and nothing of a fox.\n\n";
      chat << nlohmann::json{{"messages",
                              {{{"role", "user"}, {"content", fmt::format("What is {} and {}?", i, i + 1)}},
                               {{"role", "assistant"}, {"content", fmt::format("It is {}.", 2 * i + 1)}}}}}
           << "\n";
    }
    text.close();
    chat.close();
    for (const std::string made :
         {"other.txt -o OTHER --document-separator '\\n\\n'", "chat.jsonl -o CHAT --format chat"}) {
      std::string arguments = folder / made;
      for (const char* name : {"OTHER", "CHAT"}) {
        const auto at = arguments.find(name);
        if (at != std::string::npos) arguments.replace(at, strlen(name), folder / name);
      }
      const auto run = run_farskip("prepare " + arguments);
      ASSERT_EQ(run.status, 0) << run.err;
    }
  }
  std::string on(const std::string& data_path, const std::string& more = "") {
    return trained("connectivity=farskip \"data_path=" + data_path + "\" " + more);
  }
  const std::string fox = folder / "data_text_document", other = folder / "OTHER_text_document",
                    chat = folder / "CHAT_text_document";
};

TEST_F(Data, BlendsHaveWeights) {
  const auto mixed = digits(on(fmt::format("0.7 {} 0.3 {}", fox, other)));
  EXPECT_EQ(mixed.size(), 8u);
  EXPECT_EQ(digits(on(fmt::format("7 {} 3 {}", fox, other))), mixed) << "weights are shares";
  EXPECT_NE(digits(on(fmt::format("0.3 {} 0.7 {}", fox, other))), mixed);
  EXPECT_NE(digits(on(fmt::format("{} {}", fox, other))), digits(on(fox)));
  // Parts apart.
  const auto parts = trained(fmt::format(
      "connectivity=farskip data_path= \"train_data_path={}\" \"valid_data_path={}\" eval_iters=1 eval_interval=0", fox,
      other));
  EXPECT_THAT(read_file(parts), HasSubstr("validation_loss"));

  const auto half = run_farskip(train(fmt::format("\"data_path=0.7 {} {}\"", fox, other)));
  EXPECT_EQ(half.status, 1);
  EXPECT_THAT(half.err, HasSubstr("weight"));
  EXPECT_EQ(run_farskip(train(fmt::format("\"train_data_path={}\"", fox))).status, 1) << "beside data_path";
}

TEST_F(Data, TheTokenizerTravelsIntoSavedModels) {
  const std::string text = folder / "text.txt", vocabulary = folder / "vocabulary.json", exported = folder / "exported";
  ASSERT_EQ(run_farskip("tokenizer train " + text + " --vocab-size 300 -o " + vocabulary).status, 0);
  ASSERT_EQ(run_farskip("prepare " + text + " -o " + folder / "BPE" + " --tokenizer " + vocabulary).status, 0);
  const std::string bpe = folder / "BPE_text_document";
  on(bpe, "export=" + exported + " save=" + folder / "saved");
  for (const std::string& model : {exported, folder / "saved/iter_0000008"}) {
    EXPECT_EQ(read_file(model + "/tokenizer.json"), read_file(vocabulary));
    const auto config = nlohmann::json::parse(read_file(model + "/config.json"));
    EXPECT_EQ(config["eos_token_id"], 0) << "<|endoftext|>, and not the preset's";
  }
  // What is saved goes on, and no tokenizer is given to a model of several.
  EXPECT_EQ(
      run_farskip(train("connectivity=farskip data_path=" + bpe + " train_iters=9 load=" + folder / "saved")).status,
      0);
  on(fmt::format("{} {}", bpe, fox), "export=" + folder / "mixed");
  EXPECT_FALSE(std::filesystem::exists(folder / "mixed/tokenizer.json"));
}

TEST_F(Data, ChatsTrainOnAnswersAlone) {
  const auto masked = losses(on(chat));
  ASSERT_EQ(masked.size(), 8u);
  EXPECT_NEAR(masked.front(), std::log(320), 0.3) << "a mean over the targets that count";
  // The same mean when ranks divide the targets.
  const auto two = losses(on(chat, "--nproc 2 layout=ep=2"));
  for (size_t i = 0; i < masked.size(); ++i) EXPECT_NEAR(two[i], masked[i], 1e-4) << i;
  // Without the mask the questions count too.
  for (const char* end : {".bin", ".idx"}) std::filesystem::remove(folder / (std::string("CHAT_mask_document") + end));
  const auto all = losses(on(chat));
  EXPECT_GT(std::abs(all.back() - masked.back()), 1e-3);
}

TEST_F(Data, DamageIsFoundBeforeTheRun) {
  std::fstream file(other + ".bin", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(100);
  file.put('#');
  file.close();
  EXPECT_EQ(digits(on(other)).size(), 8u) << "a byte that is a token shows in no size";
  const auto run = run_farskip(train(fmt::format("verify_data=true data_path={}", other)));
  EXPECT_EQ(run.status, 1);
  EXPECT_THAT(run.err, HasSubstr(other + ".bin"));
}

}  // namespace
}  // namespace farskip
