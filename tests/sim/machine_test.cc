// Machines by name and from a file of figures.

#include "sim/machine.h"

#include <gmock/gmock.h>

#include "base/error.h"
#include "base/files.h"
#include "tests/base/temp_folder.h"

namespace farskip {
namespace {

using ::testing::HasSubstr;

class MachineFile : public ::testing::Test {
 protected:
  Machine read(const std::string& text) {
    write_file(path, text);
    return machine(path);
  }
  std::string refusal(const std::string& text) {
    try {
      read(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  }
  const TempFolder folder;
  const std::string path = folder / "own.json";
};

TEST_F(MachineFile, TakesWhatIsMissingFromAnotherMachine) {
  const Machine h100 = machine("h100");
  const Machine own = read(R"({"like": "h100", "name": "mine", "link_bytes_per_s": 45e9, "launch_us": 0})");
  EXPECT_EQ(own.name, "mine");
  EXPECT_EQ(own.description, "like h100");
  EXPECT_EQ(own.link_bytes_per_s, 45e9);
  EXPECT_EQ(own.launch_us, 0);
  EXPECT_EQ(own.matrix_flops, h100.matrix_flops);
  EXPECT_EQ(own.link_latency_us, h100.link_latency_us);
  EXPECT_FALSE(own.host_computes);
}

TEST_F(MachineFile, StandsAloneWithAllRates) {
  const Machine own = read(R"({"matrix_flops": 1e14, "grouped_flops": 8e13, "attention_flops": 5e13,
                               "memory_bytes_per_s": 2e12, "link_bytes_per_s": 1e11, "host_computes": true})");
  EXPECT_EQ(own.name, path);
  EXPECT_EQ(own.grouped_flops, 8e13);
  EXPECT_EQ(own.link_latency_us, 0);
  EXPECT_TRUE(own.host_computes);
}

TEST_F(MachineFile, RefusesWhatItDoesNotUnderstand) {
  EXPECT_THAT(refusal(R"({"matrix_flops": 1e14})"), HasSubstr("\"grouped_flops\" is missing"));
  EXPECT_THAT(refusal(R"({"like": "h100", "link_gbit": 400})"),
              HasSubstr("\"link_gbit\" is not a figure of a machine"));
  EXPECT_THAT(refusal(R"({"like": "h100", "memory_bytes_per_s": 0})"), HasSubstr("a positive number was expected"));
  EXPECT_THAT(refusal(R"({"like": "h100", "launch_us": -1})"), HasSubstr("at least 0"));
  EXPECT_THAT(refusal(R"({"like": "abacus"})"), HasSubstr("'abacus' is not a known machine; there are mi300x"));
  EXPECT_THAT(refusal("[1, 2]"), HasSubstr("a JSON object {...} was expected"));
  EXPECT_THAT(refusal("{"), HasSubstr("is not JSON"));
  EXPECT_THROW(machine("nowhere.json"), Error);
}

}  // namespace
}  // namespace farskip
