// The table of settings: reading, refusing, printing.

#include "config/settings.h"

#include <gmock/gmock.h>

#include "config/nearest_name.h"
#include "helpers.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

enum class Color { red, green };

struct Sample {
  bool loud;
  int64_t count;
  double rate;
  std::string name;
  std::optional<int64_t> limit;
  Color color;
};

Settings table_of(Sample& sample) {
  Settings table("sample");
  table.section("First");
  table.add("loud", sample.loud, false, "Whether it is loud.");
  table.add("count", sample.count, 3, "How many.", Range::at_least(1));
  table.add("rate", sample.rate, 0.5, "How fast | slow.", Range::positive());
  table.section("Second");
  table.add("name", sample.name, "x", "What it is called.");
  table.add_optional("limit", sample.limit, "auto", "Where it ends.", Range::between(2, 9));
  table.add_choice("color", sample.color, Color::red, {{Color::red, "red"}, {Color::green, "green"}}, "Its color.");
  return table;
}

std::string refusal(const std::string& yaml) {
  Sample sample;
  Settings table = table_of(sample);
  return error_of([&] { table.read_yaml(yaml, "r.yaml"); });
}

TEST(Settings, DeclaringWritesDefaults) {
  Sample sample;
  const Settings table = table_of(sample);
  EXPECT_FALSE(sample.loud);
  EXPECT_EQ(sample.count, 3);
  EXPECT_EQ(sample.rate, 0.5);
  EXPECT_EQ(sample.name, "x");
  EXPECT_FALSE(sample.limit.has_value());
  EXPECT_EQ(sample.color, Color::red);
  EXPECT_FALSE(table.given("count"));
  EXPECT_EQ(table.describe("count"), "count = 3 (default)");
}

TEST(Settings, RecipesAndOverrides) {
  Sample sample;
  Settings table = table_of(sample);
  table.read_yaml("# a comment\nloud: true\ncount: 7\nrate: 1e-3\nname: ep=2,dp=1\nlimit: 5\ncolor: green\n", "r.yaml");
  EXPECT_TRUE(sample.loud);
  EXPECT_EQ(sample.count, 7);
  EXPECT_EQ(sample.rate, 1e-3);
  EXPECT_EQ(sample.name, "ep=2,dp=1");
  EXPECT_EQ(sample.limit, 5);
  EXPECT_EQ(sample.color, Color::green);
  EXPECT_EQ(table.describe("count"), "r.yaml:3: count = 7");
  table.override_with("count=8");
  table.override_with("name=a=b");
  table.override_with("limit=auto");
  EXPECT_EQ(sample.count, 8);
  EXPECT_EQ(sample.name, "a=b");
  EXPECT_FALSE(sample.limit.has_value());
  EXPECT_EQ(table.describe("count"), "command line: count = 8");
}

TEST(Settings, UnknownNamesAreAnsweredWithTheNearest) {
  EXPECT_EQ(refusal("loud: true\n\ncuont: 7\n"), "r.yaml:3: unknown setting \"cuont\"; did you mean \"count\"?");
  EXPECT_THAT(refusal("zebra_crossing: 1\n"), AllOf(HasSubstr("r.yaml:1"), HasSubstr("--help-settings")));
}

TEST(Settings, WrongTypesAndRangesNameSettingAndLine) {
  EXPECT_EQ(refusal("loud: true\ncount: many\n"), "r.yaml:2: count = \"many\": an integer was expected");
  EXPECT_EQ(refusal("count: 0\n"), "r.yaml:1: count = \"0\": an integer >= 1 was expected");
  EXPECT_THAT(refusal("count: 1.5\n"), HasSubstr("an integer"));
  EXPECT_THAT(refusal("count: 99999999999999999999\n"), HasSubstr("an integer"));
  EXPECT_EQ(refusal("rate: 0\n"), "r.yaml:1: rate = \"0\": a number > 0 was expected");
  EXPECT_THAT(refusal("rate: nan\n"), HasSubstr("a number"));
  EXPECT_THAT(refusal("rate: inf\n"), HasSubstr("a number"));
  EXPECT_THAT(refusal("loud: 1\n"), HasSubstr("true or false"));
  EXPECT_EQ(refusal("limit: 10\n"), "r.yaml:1: limit = \"10\": an integer 2 .. 9, or auto was expected");
  EXPECT_THAT(refusal("color: gren\n"), AllOf(HasSubstr("red, green"), HasSubstr("did you mean green?")));
}

TEST(Settings, BadRecipes) {
  EXPECT_THAT(refusal("count:\n"), HasSubstr("has no value"));
  EXPECT_THAT(refusal("count: [1, 2]\n"), HasSubstr("not a list"));
  EXPECT_THAT(refusal("count:\n  a: 1\n"), HasSubstr("not a mapping"));
  EXPECT_THAT(refusal("count: 1\nrate: 1\ncount: 2\n"), AllOf(HasSubstr("r.yaml:3"), HasSubstr("line 1")));
  EXPECT_THAT(refusal("- count\n"), HasSubstr("name: value"));
  EXPECT_THAT(refusal("count: [1\n"), AllOf(HasSubstr("r.yaml:"), HasSubstr("not YAML")));
  Sample sample;
  Settings table = table_of(sample);
  EXPECT_THAT(error_of([&] { table.read_file("/nonexistent/r.yaml"); }), HasSubstr("/nonexistent/r.yaml"));
  EXPECT_THAT(error_of([&] { table.override_with("count"); }), HasSubstr("name=value"));
  EXPECT_THAT(error_of([&] { table.override_with("conut=1"); }), HasSubstr("did you mean \"count\"?"));
  table.read_yaml("", "empty.yaml");
  table.read_yaml("name:\n", "r.yaml");
  EXPECT_EQ(sample.name, "");
}

TEST(Settings, YamlIsReadBack) {
  Sample sample, copy;
  Settings table = table_of(sample), other = table_of(copy);
  table.override_with("name=a: [b] # \"c\"");
  table.override_with("rate=0.1");
  table.override_with("limit=4");
  other.read_yaml(table.to_yaml(), "printed.yaml");
  EXPECT_EQ(copy.name, sample.name);
  EXPECT_EQ(copy.rate, 0.1);
  EXPECT_EQ(copy.limit, 4);
  table.override_with("name=");
  other.read_yaml(table.to_yaml(), "printed.yaml");
  EXPECT_EQ(copy.name, "");
}

TEST(Settings, HelpAndMarkdownNameEverything) {
  Sample sample;
  const Settings table = table_of(sample);
  EXPECT_THAT(table.help(),
              AllOf(HasSubstr("count (integer: >= 1; default 3)\n      How many.\n"), HasSubstr("Second")));
  EXPECT_THAT(table.markdown(), AllOf(HasSubstr("| `count` | integer: >= 1 | `3` | How many. |"),
                                      HasSubstr("fast \\| slow"), HasSubstr("## Second")));
}

TEST(NearestName, CountsEdits) {
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("conut", "count"), 1);
  EXPECT_EQ(edit_distance("micro-batch-size", "micro_batch_size"), 0);
  EXPECT_EQ(nearest_name("lr_warmup", {"lr", "lr_warmup_iters", "min_lr"}), "");
  EXPECT_EQ(nearest_name("minlr", {"lr", "lr_warmup_iters", "min_lr"}), "min_lr");
}

}  // namespace
}  // namespace farskip
