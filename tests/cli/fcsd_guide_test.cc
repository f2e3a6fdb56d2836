// docs/fcsd-guide.md: each of its commands, in its order, with a tiny model in place of a real one.

#include <cstdlib>
#include <sstream>

#include "tests/cli/tiny_training.h"

namespace farskip {
namespace {

using testing::run_farskip;

struct Command {
  int line = 0;
  std::string text;
};

/// The commands of ```bash blocks; one goes on behind a line that ends with a backslash.
std::vector<Command> commands_of(const std::string& document) {
  std::istringstream lines(document);
  std::vector<Command> commands;
  bool inside = false, continued = false;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.starts_with("```")) {
      inside = line == "```bash";
      continue;
    }
    if (!inside || line.empty() || line[0] == '#') continue;
    if (continued) {
      commands.back().text += "\n" + line;
    } else {
      commands.push_back({number, line});
    }
    continued = line.ends_with('\\');
  }
  return commands;
}

class FcsdGuide : public testing::TinyTraining {
 protected:
  void SetUp() override {
    TinyTraining::SetUp();
    if (IsSkipped()) return;
    // A teacher with a tokenizer of its own, as a real one has.
    std::filesystem::create_directory(folder / "vocabulary");
    ok(run_farskip("tokenizer train " + folder / "text.txt" + " --vocab-size 300 -o " +
                   folder / "vocabulary/tokenizer.json"));
    ok(run_farskip("prepare " + folder / "text.txt" + " -o " + folder / "words" + " --document-separator '\\n\\n'" +
                   " --tokenizer " + folder / "vocabulary"));
    ok(run_farskip(train("data_path=" + folder / "words_text_document" +
                         " connectivity=standard train_iters=60 export=" + folder / "teacher")));
    std::string documents;
    for (int i = 0; i < 400; ++i) {
      const std::string text = "The " + std::string(i % 3 ? "quick" : "brown") + " fox number " + std::to_string(i) +
                               " jumps over the lazy dog.";
      documents += nlohmann::json({{"text", text}}).dump() + "\n";
    }
    write_file(folder / "documents.jsonl", documents);
    std::string pairs;
    for (int i = 0; i < 4; ++i)
      pairs += nlohmann::json({{"sentence_good", "The quick fox"}, {"sentence_bad", "The fox quick"}}).dump() + "\n";
    write_file(folder / "pairs.jsonl", pairs);
    write_file(
        folder / "small.yaml",
        "seq_length: 32\nmicro_batch_size: 2\nglobal_batch_size: 8\ntrain_iters: 4\nlr: 1.0e-3\neval_interval: 2\n"
        "eval_iters: 1\nsave_interval: 2\n");
  }
  static void ok(const testing::ProgramResult& result) { ASSERT_EQ(result.status, 0) << result.err; }

  /// Status; what was printed in `printed`.
  int run(const std::string& command, std::string& printed) const {
    const std::vector<std::pair<std::string, std::string>> variables = {{"MODEL", folder / "teacher"},
                                                                        {"TRAIN_TEXT", folder / "documents.jsonl"},
                                                                        {"CALIB_TEXT", folder / "documents.jsonl"},
                                                                        {"VALID_TEXT", folder / "documents.jsonl"},
                                                                        {"PAIRS", folder / "pairs.jsonl"},
                                                                        {"RECIPE", folder / "small.yaml"},
                                                                        {"CONNECTIVITY", "layers=1-2"},
                                                                        {"MACHINE", "cpu"},
                                                                        {"RANKS", "2"},
                                                                        {"WINDOW", "32"},
                                                                        {"OUT", folder / "out"}};
    std::string script = "set -euo pipefail\ncd " + folder.string() + "\nexport PATH='" FARSKIP_BINARY_DIR "':$PATH\n";
    for (const auto& [name, value] : variables) script += name + "='" + value + "'\n";
    write_file(folder / "command.sh", script + command + "\n");
    const int status = std::system(("bash " + folder / "command.sh" + " >" + folder / "printed" + " 2>&1").c_str());
    printed = read_file(folder / "printed");
    return status;
  }
};

TEST_F(FcsdGuide, EveryCommandRuns) {
  const auto commands = commands_of(read_file(FARSKIP_SOURCE_DIR "/docs/fcsd-guide.md"));
  ASSERT_GT(commands.size(), 10u);
  for (const Command& command : commands) {
    std::string printed;
    EXPECT_EQ(run(command.text, printed), 0) << "line " << command.line << ": " << command.text << "\n" << printed;
  }
  for (const std::string name : {"teacher.json", "untrained.json", "calibrated.json", "student.json"}) {
    const auto results = nlohmann::json::parse(read_file(folder / "out/" + name));
    EXPECT_EQ(results.at("tasks").size(), 2u) << name;
  }
}

}  // namespace
}  // namespace farskip
