// The shape of the source tree: the rules on this tree, and each rule on a made-up file that breaks it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/structure/rules.h"

namespace farskip::structure {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

const fs::path kRoot = FARSKIP_SOURCE_DIR;

std::string read(const fs::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::vector<Source> tree() {
  std::vector<Source> sources;
  for (const char* top : {"src", "tests", "bench", "examples"}) {
    if (!fs::exists(kRoot / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / top)) {
      const auto extension = entry.path().extension();
      if (extension == ".cc" || extension == ".h") {
        sources.push_back({fs::relative(entry.path(), kRoot).string(), read(entry.path())});
      }
    }
  }
  return sources;
}

TEST(Tree, KeepsItsRules) {
  const Folders folders = parse_folders(read(kRoot / "CMakeLists.txt"));
  ASSERT_GE(folders.may_include.size(), 7u) << "farskip_library lines of CMakeLists.txt";
  const auto sources = tree();
  ASSERT_GE(sources.size(), 10u);
  for (const auto& source : sources) {
    for (const auto& complaint : check_source(source, folders)) ADD_FAILURE() << complaint;
  }
}

TEST(Tree, NoTwoClassesShareAName) { EXPECT_THAT(check_class_names(tree()), IsEmpty()); }

TEST(Tree, EveryFolderOfSrcIsALibrary) {
  const Folders folders = parse_folders(read(kRoot / "CMakeLists.txt"));
  for (const auto& entry : fs::directory_iterator(kRoot / "src")) {
    const std::string name = entry.path().filename();
    EXPECT_TRUE(name == "cli" || folders.may_include.count(name)) << "src/" << name;
  }
}

TEST(Tree, ReadmeIsShort) {
  if (!fs::exists(kRoot / "README.md")) GTEST_SKIP() << "no README.md yet";
  EXPECT_THAT(check_readme({"README.md", read(kRoot / "README.md")}), IsEmpty());
}

TEST(Tree, PackagesAreNamedOnce) {
  std::istringstream in(read(kRoot / "packages.txt"));
  std::set<std::string> names;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    std::string name, kind, rest;
    words >> name >> kind;
    EXPECT_TRUE(names.insert(name).second) << name << " stands in packages.txt twice";
    EXPECT_TRUE(kind == "tool" || kind == "library" || kind == "test" || kind == "demo") << line;
    EXPECT_FALSE(words >> rest) << line;
  }
  EXPECT_TRUE(names.count("g++"));
}

/// Rules on made-up files: torch folder `nn` beside `layer` above `config` above `base`.
class Rules : public ::testing::Test {
 protected:
  std::vector<std::string> check(const std::string& path, const std::string& text) const {
    return check_source({path, text}, folders_);
  }

  const Folders folders_ = parse_folders(
      "farskip_library(base)\nfarskip_library(config DEPS base)\nfarskip_library(layer DEPS config)\n"
      "if(FARSKIP_TORCH)\n  farskip_library(nn DEPS base TORCH)\n  farskip_library(exec DEPS nn layer "
      "TORCH)\nendif()\n");
};

TEST_F(Rules, DependenciesAreTransitive) {
  EXPECT_THAT(folders_.may_include.at("layer"), ElementsAre("base", "config", "layer"));
  EXPECT_THAT(folders_.may_include.at("exec"), ElementsAre("base", "config", "exec", "layer", "nn"));
  EXPECT_THAT(folders_.torch, ElementsAre("exec", "nn"));
}

TEST_F(Rules, IncludesPointDownward) {
  EXPECT_THAT(check("src/layer/a.cc", "#include \"layer/a.h\"\n#include \"base/error.h\"\n"), IsEmpty());
  EXPECT_THAT(check("src/config/a.cc", "\n#include \"layer/a.h\"\n"), ElementsAre(HasSubstr("src/config/a.cc:2: ")));
  EXPECT_THAT(check("src/nn/a.cc", "#include \"layer/a.h\"\n"), ElementsAre(HasSubstr("may not include \"layer/")));
  EXPECT_THAT(check("src/new/a.cc", "int x;\n"), ElementsAre(HasSubstr("no library for src/new")));
}

TEST_F(Rules, TheCoreIncludesNoLibtorch) {
  for (const char* header : {"<torch/torch.h>", "<ATen/ATen.h>", "<c10/util/Exception.h>", "\"torch/types.h\""}) {
    const std::string text = std::string("#include ") + header + "\n";
    EXPECT_THAT(check("src/layer/a.cc", text), ElementsAre(HasSubstr("without libtorch"))) << header;
    EXPECT_THAT(check("src/cli/show.cc", text), ElementsAre(HasSubstr("without libtorch"))) << header;
    EXPECT_THAT(check("src/nn/a.cc", text), IsEmpty()) << header;
    EXPECT_THAT(check("src/cli/torch_train.cc", text), IsEmpty()) << header;
  }
  EXPECT_THAT(check("src/cli/show.cc", "#include \"nn/norm.h\"\n"), ElementsAre(HasSubstr("cli/torch_*.cc")));
  EXPECT_THAT(check("src/cli/show.cc", "#include \"layer/stage.h\"\n"), IsEmpty());
}

TEST_F(Rules, StreamsStayInTransportAndExec) {
  const std::string text = "at::cuda::CUDAStream stream;\n";
  EXPECT_THAT(check("src/nn/a.cc", text), ElementsAre(HasSubstr("CUDAStream")));
  EXPECT_THAT(check("src/exec/a.cc", text), IsEmpty());
}

TEST_F(Rules, AClassNameIsDefinedOnce) {
  const Source one{"src/nn/a.h",
                   "namespace farskip {\nclass Spool final : public Base {\n};\n}  // namespace farskip\n"};
  const Source two{"src/layer/b.cc", "namespace farskip {\nnamespace {\n}  // namespace\nstruct Spool {\n"};
  const Source hidden{"src/layer/c.cc", "namespace farskip {\nnamespace {\nstruct Spool {\n"};
  const Source inner{"src/nn/d.h", "namespace farskip::nn {\nstruct Spool {\n"};
  const Source declared{"src/nn/e.h", "namespace farskip {\nclass Spool;\n"};
  EXPECT_THAT(check_class_names({one, two}),
              ElementsAre("src/layer/b.cc:4: farskip::Spool is also defined at src/nn/a.h:2"));
  EXPECT_THAT(check_class_names({one, hidden, inner, declared}), IsEmpty());
}

TEST_F(Rules, LongFilesSayWhy) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "int x;\n";
  EXPECT_THAT(check("tests/a.cc", text), IsEmpty());
  EXPECT_THAT(check("tests/a.cc", text + "int y;\n"), ElementsAre(HasSubstr("401 lines")));
  EXPECT_THAT(check("tests/a.cc", text + "// long file: \n"), ElementsAre(HasSubstr("401 lines")));
  EXPECT_THAT(check("tests/a.cc", text + "// long file: one table\n"), IsEmpty());
}

TEST_F(Rules, HeadersSayWhatTheyAreFor) {
  EXPECT_THAT(check("src/base/a.h", "#pragma once\n// A.\n\nint x;\n"), IsEmpty());
  EXPECT_THAT(check("src/base/a.h", "// A.\n#pragma once\n"), IsEmpty());
  EXPECT_THAT(check("src/base/a.h", "#pragma once\n\nint x;  // not a leading comment\n// late\n"),
              ElementsAre(HasSubstr("leading comment")));
  EXPECT_THAT(check("tests/base/a.h", "// A.\nint x;\n"), ElementsAre(HasSubstr("#pragma once")));
}

TEST_F(Rules, ReadmeHasALimit) {
  std::string text(149, '\n');
  EXPECT_THAT(check_readme({"README.md", text}), IsEmpty());
  EXPECT_THAT(check_readme({"README.md", text + "\n"}), ElementsAre(HasSubstr("150 lines")));
}

}  // namespace
}  // namespace farskip::structure
