#pragma once
// Which sequences a step continues, and by how many tokens: continuous batching with chunked prefill over a paged
// cache. Decisions alone, no tensors and no clock: the same calls give the same plans.
//
// Sequences are served in the order in which they came. One is admitted when the pages of all its tokens fit beside
// those in use, and takes them at once. Pages for the tokens it makes are taken one by one: where none is left, the
// newest sequence of that cache gives its pages back and waits to be computed again. (Pages reserved for max_tokens
// would never run out, but most sequences stop long before, and a cache would hold a fraction of the sequences. What is
// computed again is little: full pages are kept for it as long as nobody needs them.) A cache has room for the longest
// sequence, so the oldest one always goes on, and every sequence ends.
//
// Each full page is kept under the digest of its tokens and of all before them, and a sequence that begins with the
// same tokens shares it. The last token is always computed, since its logits are needed.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "infer/page_pool.h"

namespace farskip {

/// Names are vLLM's where it has them.
struct SchedulerOptions {
  int64_t num_caches = 1;                 ///< ranks that hold sequences of their own; the figures below are of each
  int64_t num_pages = 0;                  ///< REQUIRES: enough for max_model_len
  int64_t page_positions = 64;            ///< positions in a page
  int64_t max_model_len = 0;              ///< positions of a sequence
  int64_t max_num_seqs = 64;              ///< sequences in a step
  int64_t max_num_batched_tokens = 2048;  ///< tokens in a step; at least max_num_seqs, so that each can go on
  bool enable_prefix_caching = true;

  /// Throws Error for values that contradict each other.
  void check() const;
};

/// A sequence as a scheduler sees it.
struct ScheduledRequest {
  std::vector<int32_t> prompt;
  int64_t max_tokens = 16;  ///< 0: the prompt is computed and nothing drawn
  std::vector<int32_t> stop_tokens = {};
  bool prompt_logprobs = false;  ///< logits of the whole prompt are needed, so nothing of it is shared
};

/// New positions of one sequence.
struct ScheduledChunk {
  uint64_t id = 0;
  int64_t cache = 0;  ///< the rank that holds the sequence
  int64_t position = 0, num_tokens = 0;
  bool samples = false;           ///< a token is drawn from the logits of the last position
  int64_t num_prompt_logits = 0;  ///< so many first positions' logits judge the prompt's next token
  std::vector<int32_t> new_pages;

  int64_t end() const { return position + num_tokens; }
  /// So many last positions' logits are needed.
  int64_t num_logits() const { return num_prompt_logits > 0 ? num_tokens : samples ? 1 : 0; }
  bool operator==(const ScheduledChunk&) const = default;
};

struct StepPlan {
  std::vector<uint64_t> removed;  ///< ended, or to be computed again: in order, before `admitted`
  struct Admission {
    uint64_t id;
    int64_t cache;
    bool operator==(const Admission&) const = default;
  };
  std::vector<Admission> admitted;
  std::vector<ScheduledChunk> chunks;

  bool operator==(const StepPlan&) const = default;
};

enum class FinishReason : uint8_t { none, stop, length, error };

/// What a step brought to a sequence that is not forgotten.
struct SequenceProgress {
  size_t chunk;                  ///< of the plan
  std::optional<int32_t> token;  ///< a new one; none where it ends by a stop token, fails, or only its prompt was read
  FinishReason finished = FinishReason::none;
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  /// `id` grows from call to call. REQUIRES: a prompt of 1 to max_model_len - 1 tokens.
  void add(uint64_t id, ScheduledRequest request);
  /// The sequence is forgotten; false: there is none. A plan that has it is carried out all the same.
  bool cancel(uint64_t id);

  /// The next step, which may be planned before the results of one step are known: what that draws is then computed
  /// in the next one as "the last token of the sequence".
  StepPlan schedule();
  /// What came of a plan: per chunk the token drawn, -1 where that failed. Plans are reported in their order.
  std::vector<SequenceProgress> update(const StepPlan& plan, const std::vector<int32_t>& tokens);

  /// The tokens of a sequence, prompt first, as far as they are known.
  const std::vector<int32_t>& tokens(uint64_t id) const { return sequences_.at(id).tokens; }
  bool contains(uint64_t id) const { return sequences_.count(id) != 0; }
  /// A plan would have something to do, or to tell other ranks.
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t pages_used() const;
  int64_t pages_in_all() const { return options_.num_caches * options_.num_pages; }
  int64_t num_preemptions() const { return num_preemptions_; }
  int64_t cached_prompt_tokens() const { return cached_prompt_tokens_; }  ///< shared by sequences when they began

  /// Stops the program where a page is lost or used twice, or an order is broken.
  void check() const;

 private:
  struct Sequence {
    ScheduledRequest request;
    std::vector<int32_t> tokens;  ///< prompt, then those drawn
    int64_t num_unknown = 0;      ///< drawn by a plan whose results are not reported yet
    int64_t num_computed = 0;     ///< positions in the cache, when all plans are carried out
    int64_t cache = -1;           ///< -1: it waits
    std::vector<int32_t> pages;
    std::vector<PageKey> keys;  ///< of the full pages of `tokens`, as far as they were needed
    int64_t num_published = 0;  ///< of `pages`
    bool begun = false;         ///< admitted before

    int64_t length() const { return static_cast<int64_t>(tokens.size()) + num_unknown; }
    int64_t num_prompt() const { return static_cast<int64_t>(request.prompt.size()); }
    bool judges_prompt() const { return request.prompt_logprobs && length() == num_prompt(); }
  };
  /// What is left of a step's bounds for one cache.
  struct Room {
    int64_t tokens;
    int64_t num_to_come = 0;  ///< running sequences that have not been looked at
    bool preempted = false;
  };

  int64_t pages_of(int64_t positions) const {
    return (positions + options_.page_positions - 1) / options_.page_positions;
  }
  /// All its tokens are drawn or about to be.
  bool complete(const Sequence& sequence) const;
  void continue_running(StepPlan& plan, std::vector<Room>& rooms);
  void admit_waiting(StepPlan& plan, std::vector<Room>& rooms);
  void publish(Sequence& sequence);
  bool find_page(StepPlan& plan, std::vector<Room>& rooms, uint64_t id);
  void preempt(StepPlan& plan, std::vector<Room>& rooms, uint64_t id);
  /// The cache that holds most of the sequence's beginning, or is emptiest, where it fits; -1: nowhere.
  int64_t choose_cache(Sequence& sequence, const std::vector<Room>& rooms);
  std::span<const PageKey> shareable(Sequence& sequence);
  void extend_keys(Sequence& sequence, int64_t num_pages);
  void append_chunk(StepPlan& plan, uint64_t id, int64_t num_tokens, std::vector<int32_t> new_pages);
  void give_back(Sequence& sequence);
  void erase(uint64_t id);

  SchedulerOptions options_;
  std::vector<PagePool> pools_;  ///< per cache
  std::map<uint64_t, Sequence> sequences_;
  std::vector<uint64_t> running_;  ///< oldest first
  std::deque<uint64_t> waiting_;   ///< oldest first
  std::vector<uint64_t> removed_;  ///< since the last plan
  int64_t num_preemptions_ = 0, cached_prompt_tokens_ = 0;
};

}  // namespace farskip
