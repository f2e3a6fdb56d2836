// How fast does one thread tokenize, against Hugging Face's tokenizers with the same vocabulary and text?
//
//   build/bench/tokenizer_speed TOKENIZER_JSON TEXT... [python=PYTHON] [pythonpath=FOLDER] [rounds=7]
//
// PYTHON has the package tokenizers (or finds it in `pythonpath`). Both encode each file as one text, in turns, in one
// run on one machine; the ids must be equal. A row gives medians over the rounds after the first.

#include <cstdio>
#include <map>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "base/progress.h"
#include "base/stats.h"
#include "bench/peer.h"
#include "tokenizer/tokenizer.h"

namespace farskip {
namespace {

/// Lines with their ends; what stands behind the last is left out.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1)) {
    lines.push_back(text.substr(0, end + 1));
  }
  return lines;
}

void run(int argc, char** argv) {
  std::map<std::string, std::string> options = {{"python", "python3"}, {"pythonpath", ""}, {"rounds", "7"}};
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i], key = word.substr(0, word.find('='));
    if (options.count(key) > 0 && key.size() < word.size()) {
      options[key] = word.substr(key.size() + 1);
    } else {
      files.push_back(word);
    }
  }
  if (files.size() < 2) fail("usage: tokenizer_speed TOKENIZER_JSON TEXT... [python=] [pythonpath=] [rounds=]");
  const auto tokenizer = load_tokenizer(files[0]);
  Peer peer({options["python"], FARSKIP_BENCH_DIR "/hf_tokenizer.py", files[0]}, options["pythonpath"]);
  std::printf("| text | as | MB | ids | ours, MB/s | tokenizers, MB/s | ratio |\n|---|---|---|---|---|---|---|\n");
  for (size_t f = 1; f < files.size(); ++f) {
    const std::string text = read_file(files[f]);
    for (const std::string mode : {"whole", "lines"}) {
      const std::vector<std::string_view> texts =
          mode == "whole" ? std::vector<std::string_view>{text} : lines_of(text);
      std::vector<double> ours, theirs;
      size_t num_ids = 0;
      for (int round = 0; round < std::stoi(options["rounds"]) + 1; ++round) {
        std::vector<int32_t> ids;
        const double start = monotonic_seconds();
        for (const auto part : texts) tokenizer->encode(part, ids);
        const double seconds = monotonic_seconds() - start;
        int64_t sum = 0, place = 0;
        for (const int32_t id : ids) sum += place < 1000000 ? ++place * id : 0;
        peer.send(mode + " " + files[f]);
        std::string line;
        if (!peer.receive(line)) fail("{}: the peer has ended", files[f]);
        std::istringstream answer(line);
        double peer_seconds = 0;
        int64_t peer_ids = 0, peer_sum = 0;
        answer >> peer_seconds >> peer_ids >> peer_sum;
        if (peer_ids != static_cast<int64_t>(ids.size()) || peer_sum != sum) fail("{}: the ids differ", files[f]);
        num_ids = ids.size();
        if (round > 0) ours.push_back(seconds), theirs.push_back(peer_seconds);
      }
      const double mb = static_cast<double>(text.size()) * 1e-6;
      std::printf("| %s | %s | %.2f | %zu | %.1f | %.1f | %.1f |\n", files[f].substr(files[f].rfind('/') + 1).c_str(),
                  mode.c_str(), mb, num_ids, mb / median(ours), mb / median(theirs), median(theirs) / median(ours));
      std::fflush(stdout);
    }
  }
}

}  // namespace
}  // namespace farskip

int main(int argc, char** argv) {
  try {
    farskip::run(argc, argv);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tokenizer_speed: %s\n", error.what());
    return 1;
  }
}
