#include "model/safetensors.h"

#include <ATen/ATen.h>
#include <sys/mman.h>
#include <unistd.h>

#include <random>

#include "model/safetensors_writer.h"
#include "tests/model/model_test.h"

namespace farskip {
namespace {

using namespace testing;

/// A file with this header and `num_bytes` of tensors.
std::string file_of(const std::string& json, size_t num_bytes) {
  const uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + json + std::string(num_bytes, '\1');
}

std::string one_tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"w":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

TEST(Safetensors, EveryDtypeComesBack) {
  TempFolder folder;
  const at::Tensor source = at::arange(-6, 6).reshape({3, 4});
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                           at::kChar, at::kByte, at::kBool, at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    tensors.emplace_back(std::string(c10::toString(dtype)), source.to(dtype));
  }
  tensors.emplace_back("empty", at::empty({0, 5}));
  tensors.emplace_back("scalar", at::scalar_tensor(2.5));
  tensors.emplace_back("strided", source.to(at::kFloat).t());
  save_safetensors(folder / "all.safetensors", tensors);
  const SafetensorsReader reader(folder / "all.safetensors");
  EXPECT_EQ(reader.names().size(), tensors.size());
  EXPECT_EQ(reader.metadata().at("format"), "pt");
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor read = reader.tensor(name);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_EQ(read.sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(at::equal(read.to(at::kDouble), tensor.to(at::kDouble))) << name;
  }
  expect_error([&] { reader.tensor("absent"); }, {"no tensor absent"});
}

TEST(Safetensors, TensorsOutliveTheReader) {
  TempFolder folder;
  save_safetensors(folder / "a.safetensors", {{"w", at::full({100}, 3.0)}});
  at::Tensor view;
  {
    const SafetensorsReader reader(folder / "a.safetensors");
    view = reader.tensor("w");
    EXPECT_EQ(view.data_ptr(), reader.tensor("w").data_ptr()) << "a view, not a copy";
  }
  EXPECT_EQ(view.sum().item<double>(), 300.0);
}

TEST(Safetensors, MisalignedTensorsAreCopied) {
  TempFolder folder;
  std::string file = file_of(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("w":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})",
                             9);
  const float values[2] = {1.5f, -2.0f};
  std::memcpy(file.data() + file.size() - 8, values, 8);
  write_file(folder / "a.safetensors", file);
  const at::Tensor w = SafetensorsReader(folder / "a.safetensors").tensor("w");
  EXPECT_EQ(w[0].item<float>(), 1.5f);
  EXPECT_EQ(w[1].item<float>(), -2.0f);
}

TEST(Safetensors, GoldenFilesAreWrittenByteForByte) {
  for (const std::string name : {"moonlight", "qwen3_moe"}) {
    REQUIRE_GOLDEN(name);
    TempFolder folder;
    const std::string file = "model.safetensors";
    const SafetensorsReader reader(golden_folder(name) / file);
    std::vector<std::pair<std::string, at::Tensor>> tensors;
    for (const auto& tensor : reader.names()) tensors.emplace_back(tensor, reader.tensor(tensor));
    save_safetensors(folder / file, tensors);
    EXPECT_TRUE(read_file(folder / file) == read_file(golden_folder(name) / file)) << name;
  }
}

struct BadFile {
  const char* what;
  std::string bytes;
  std::vector<std::string> message;
};

TEST(Safetensors, BadFilesAreRefused) {
  const std::string long_header = std::string("\xff\xff\xff\xff\0\0\0\0", 8);
  const auto two = [](const char* first, const char* second) {
    return std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + first +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}";
  };
  const std::vector<BadFile> cases = {
      {"empty", "", {"0 bytes"}},
      {"short", "abc", {"3 bytes"}},
      {"header too small", file_of("{", 0), {"1 bytes", "at least 2"}},
      {"header too large", long_header + "{}", {"4294967295", "100000000"}},
      {"header truncated", file_of("{}", 0).substr(0, 9), {"2 bytes", "only 1 follow"}},
      {"not JSON", file_of("{\"w\":", 0), {"not JSON"}},
      {"not an object", file_of("[1, 2]", 0), {"not a JSON object"}},
      {"not UTF-8", file_of("{\"\xff\xfe\":1}", 0), {"not JSON"}},
      {"deep", file_of(std::string(5000, '['), 0), {"nests deeper"}},
      {"entry not an object", file_of(R"({"w":3})", 0), {"tensor w", "not an object"}},
      {"unknown dtype", file_of(one_tensor("F4", "[1]", "[0,4]"), 4), {"tensor w", "\"F4\"", "BF16"}},
      {"dtype not a string",
       file_of(R"({"w":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4),
       {"tensor w", "dtype"}},
      {"no shape", file_of(R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4), {"tensor w", "\"shape\" is missing"}},
      {"unknown key", file_of(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4), {"w", "\"x\""}},
      {"negative", file_of(one_tensor("F32", "[-1]", "[0,4]"), 4), {"tensor w", "shape[0] is -1"}},
      {"fraction", file_of(one_tensor("F32", "[1.5]", "[0,4]"), 4), {"tensor w", "1.5"}},
      {"huge number", file_of(one_tensor("F32", "[99999999999999999999]", "[0,4]"), 4), {"tensor w", "shape[0]"}},
      {"overflow",
       file_of(one_tensor("F32", "[4294967296,4294967296]", "[0,4]"), 4),
       {"tensor w", "4294967296", "2^63"}},
      {"empty overflow", file_of(one_tensor("F32", "[0,4294967296,4294967296]", "[0,0]"), 0), {"tensor w", "2^63"}},
      {"dimensions",
       file_of(one_tensor("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]"), 1),
       {"tensor w", "17 dimensions", "16"}},
      {"one offset", file_of(one_tensor("F32", "[1]", "[0]"), 4), {"tensor w", "1 numbers"}},
      {"backwards", file_of(one_tensor("F32", "[1]", "[4,0]"), 4), {"tensor w", "4", "ends at 0"}},
      {"truncated", file_of(one_tensor("F32", "[2]", "[0,8]"), 7), {"tensor w", "8", "7", "truncated"}},
      {"size", file_of(one_tensor("F32", "[3]", "[0,8]"), 8), {"tensor w", "8 bytes", "takes 12"}},
      {"trailing", file_of(one_tensor("F32", "[1]", "[0,4]"), 5), {"w ends at byte 4", "5"}},
      {"overlap", file_of(two("[0,4]", "[3,7]"), 7), {"tensor b", "3", "a ends at 4", "overlap"}},
      {"same place", file_of(two("[0,4]", "[0,4]"), 4), {"tensor b", "overlap"}},
      {"hole", file_of(two("[0,4]", "[5,9]"), 9), {"tensor b", "5", "a ends at 4", "hole"}},
      {"hole in front", file_of(two("[1,5]", "[5,9]"), 9), {"tensor a", "1", "the header ends at 0"}},
      {"twice",
       file_of(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
               R"("w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
               1),
       {"\"w\" twice"}},
      {"metadata", file_of(R"({"__metadata__":{"a":1}})", 0), {"__metadata__", "\"a\""}},
  };
  TempFolder folder;
  for (const auto& bad : cases) {
    SCOPED_TRACE(bad.what);
    write_file(folder / "bad.safetensors", bad.bytes);
    auto message = bad.message;
    message.push_back("bad.safetensors");
    expect_error([&] { SafetensorsReader reader(folder / "bad.safetensors"); }, message);
  }
  expect_error([&] { SafetensorsReader reader(folder / "absent"); }, {"absent"});
  expect_error([&] { SafetensorsReader reader(folder / ""); }, {"neither model.safetensors nor"});
}

/// Whatever the bytes: tensors that can be read to the end, or an Error.
TEST(Safetensors, MutatedFilesLoadOrAreRefused) {
  TempFolder folder;
  save_safetensors(folder / "a.safetensors", {{"a", at::arange(6).to(at::kFloat).reshape({2, 3})},
                                              {"b", at::arange(5).to(at::kBFloat16)},
                                              {"c", at::ones({3}, at::kBool)},
                                              {"d", at::empty({0, 7}, at::kLong)}});
  const std::string valid = read_file(folder / "a.safetensors");
  const std::string alphabet = "{}[]\",:0123456789-eE.\\u FBI\xff";
  std::mt19937_64 random(7);
  const auto below = [&](size_t bound) { return static_cast<size_t>(random() % bound); };
  int num_loaded = 0, num_refused = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string file = valid;
    for (size_t change = below(3); change < 3; ++change) {
      const size_t at = below(8) == 0 ? below(std::min<size_t>(file.size(), 16)) : below(file.size());
      switch (below(5)) {
        case 0:
          file[at] = static_cast<char>(random());
          break;
        case 1:
          file[at] = alphabet[below(alphabet.size())];
          break;
        case 2:
          file.erase(at, 1 + below(8));
          break;
        case 3:
          file.insert(at, 1, alphabet[below(alphabet.size())]);
          break;
        default:
          file[at] = static_cast<char>(file[at] ^ (1 << below(8)));
      }
      if (file.empty()) break;
    }
    const int fd = ::memfd_create("mutated", 0);  // in memory: a disk would make thousands of small files slow
    ASSERT_EQ(::write(fd, file.data(), file.size()), static_cast<ssize_t>(file.size()));
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    try {
      const SafetensorsReader reader(path);
      for (const auto& name : reader.names()) reader.tensor(name).to(at::kDouble).sum().item<double>();
      ++num_loaded;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(path));
      ++num_refused;
    }
    ::close(fd);
  }
  EXPECT_GT(num_loaded, 100) << "changed values, names and padding are still valid files";
  EXPECT_GT(num_refused, 1000);
}

TEST(Safetensors, ShardsAndIndex) {
  TempFolder folder;
  const std::vector<TensorSpec> specs = {
      {"a", at::kFloat, {10}}, {"b", at::kFloat, {10}}, {"c", at::kFloat, {50}}, {"d", at::kFloat, {1}}};
  ShardedWriter writer(folder / ".", specs, 80);
  for (const auto& spec : specs) writer.write(spec.name, at::full(spec.shape, spec.shape[0] * 1.0));
  writer.commit();
  EXPECT_TRUE(fs::exists(folder / "model-00003-of-00003.safetensors"));
  const auto index = read_json(folder / safetensors_index_name);
  EXPECT_EQ(index["metadata"]["total_size"], 4 * 71);
  EXPECT_EQ(index["weight_map"]["b"], "model-00001-of-00003.safetensors");
  EXPECT_EQ(index["weight_map"]["c"], "model-00002-of-00003.safetensors") << "larger than a shard may be";
  const SafetensorsReader reader(folder / ".");
  for (const auto& spec : specs) {
    EXPECT_TRUE(at::equal(reader.tensor(spec.name), at::full(spec.shape, spec.shape[0] * 1.0))) << spec.name;
  }

  const auto with_index = [&](const std::function<void(nlohmann::json&)>& change) {
    auto changed = index;
    change(changed["weight_map"]);
    write_file(folder / safetensors_index_name, changed.dump());
    SafetensorsReader again(folder / ".");
  };
  const std::string first = "model-00001-of-00003.safetensors", third = "model-00003-of-00003.safetensors";
  expect_error([&] { with_index([&](auto& map) { map["a"] = third; }); }, {"tensor a", third, first});
  expect_error([&] { with_index([&](auto& map) { map["z"] = third; }); }, {"tensor z", third, "in none"});
  expect_error([&] { with_index([&](auto& map) { map.erase("a"); }); }, {"tensor a", "not in the index"});
  expect_error([&] { with_index([&](auto& map) { map["a"] = "gone.safetensors"; }); }, {"gone.safetensors"});
  for (const std::string file : {"../x", "/etc/passwd", "..", "", "a/b"}) {
    expect_error([&] { with_index([&](auto& map) { map["a"] = file; }); }, {"not the name of a file", file});
  }
  expect_error([&] { with_index([&](auto& map) { map = 3; }); }, {"weight_map"});
  fs::copy_file(folder / first, folder / "copy.safetensors");
  expect_error([&] { with_index([&](auto& map) { map["b"] = "copy.safetensors"; }); }, {"is in both", "copy"});
}

TEST(Safetensors, WriterRefusesWhatWasNotDeclared) {
  TempFolder folder;
  const std::string path = folder / "a.safetensors";
  {
    SafetensorsWriter writer(path, {{"a", at::kFloat, {2}}, {"b", at::kFloat, {3}}});
    expect_error([&] { writer.write("b", at::zeros({3})); }, {"tensor b", "where a was declared"});
    expect_error([&] { writer.write("a", at::zeros({3})); }, {"tensor a", "[3]", "[2]"});
    writer.write("a", at::zeros({2}));
    expect_error([&] { writer.commit(); }, {"1 of 2", "the first is b"});
  }
  EXPECT_TRUE(fs::is_empty(folder / ".")) << "nothing is left without commit";
  expect_error([&] { SafetensorsWriter(path, {{"a", at::kFloat, {2}}, {"a", at::kHalf, {3}}}); }, {"the name a"});
  expect_error([&] { SafetensorsWriter(path, {{"a", at::kHalf, {1}}, {"b", at::kFloat, {3}}}); }, {"b", "misaligned"});
  expect_error([&] { SafetensorsWriter(folder / "no/such", {}); }, {"no/such"});
  expect_error([&] { save_safetensors(path, {{"a", at::zeros({1}, at::kComplexFloat)}}); }, {"ComplexFloat"});
}

}  // namespace
}  // namespace farskip
