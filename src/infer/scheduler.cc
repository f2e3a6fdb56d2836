#include "infer/scheduler.h"

#include <algorithm>

#include "base/error.h"

namespace farskip {
namespace {

/// A chunk whose logits are all wanted is kept short: they are as wide as the vocabulary.
constexpr int64_t max_prompt_logits = 256;

template <typename Ids>
void insert_in_order(Ids& ids, uint64_t id) {
  ids.insert(std::lower_bound(ids.begin(), ids.end(), id), id);
}

template <typename Ids>
void erase_from(Ids& ids, uint64_t id) {
  const auto found = std::lower_bound(ids.begin(), ids.end(), id);
  FARSKIP_CHECK(found != ids.end() && *found == id, "a sequence that is neither running nor waiting");
  ids.erase(found);
}

}  // namespace

void SchedulerOptions::check() const {
  if (max_num_seqs < 1) fail("max_num_seqs is {}; it must be 1 or more", max_num_seqs);
  if (max_num_batched_tokens < max_num_seqs) {
    fail(
        "max_num_batched_tokens is {} and max_num_seqs {}: each sequence needs a token of a step; raise the first or "
        "lower the second",
        max_num_batched_tokens, max_num_seqs);
  }
  if (max_model_len < 2) fail("max_model_len is {}; a prompt and a token need 2 or more", max_model_len);
  if (num_pages * page_positions < max_model_len) {
    fail("a cache of {} positions for sequences of {}; enlarge it or lower max_model_len", num_pages * page_positions,
         max_model_len);
  }
}

Scheduler::Scheduler(const SchedulerOptions& options) : options_(options) {
  options.check();
  pools_.assign(options.num_caches, PagePool(options.num_pages));
}

void Scheduler::add(uint64_t id, ScheduledRequest request) {
  FARSKIP_CHECK(sequences_.empty() || sequences_.rbegin()->first < id, "sequences are numbered in their order");
  FARSKIP_CHECK(!request.prompt.empty() && std::ssize(request.prompt) < options_.max_model_len);
  Sequence sequence;
  sequence.tokens = request.prompt;
  sequence.request = std::move(request);
  sequences_.emplace(id, std::move(sequence));
  waiting_.push_back(id);
}

bool Scheduler::cancel(uint64_t id) {
  if (!contains(id)) return false;
  erase(id);
  return true;
}

void Scheduler::give_back(Sequence& sequence) {
  pools_[sequence.cache].give_back(sequence.pages);
  sequence.pages.clear();
  sequence.cache = -1;
  sequence.num_computed = sequence.num_published = 0;
}

void Scheduler::erase(uint64_t id) {
  Sequence& sequence = sequences_.at(id);
  if (sequence.cache < 0) {
    erase_from(waiting_, id);
  } else {
    give_back(sequence);
    erase_from(running_, id);
    removed_.push_back(id);
  }
  sequences_.erase(id);
}

bool Scheduler::complete(const Sequence& sequence) const {
  if (sequence.num_computed < sequence.num_prompt()) return false;
  return sequence.length() - sequence.num_prompt() >= sequence.request.max_tokens ||
         sequence.length() >= options_.max_model_len;
}

void Scheduler::preempt(StepPlan& plan, std::vector<Room>& rooms, uint64_t id) {
  Sequence& sequence = sequences_.at(id);
  rooms[sequence.cache].preempted = true;
  give_back(sequence);
  erase_from(running_, id);
  insert_in_order(waiting_, id);
  plan.removed.push_back(id);
  ++num_preemptions_;
}

// Makes sure that the cache of `id` has a page to give. False: `id` itself had to go.
bool Scheduler::find_page(StepPlan& plan, std::vector<Room>& rooms, uint64_t id) {
  const int64_t cache = sequences_.at(id).cache;
  while (pools_[cache].num_free() == 0) {
    const auto newest =
        std::find_if(running_.rbegin(), running_.rend(), [&](uint64_t s) { return sequences_.at(s).cache == cache; });
    const uint64_t victim = *newest;
    preempt(plan, rooms, victim);
    if (victim == id) return false;
    --rooms[cache].num_to_come;
  }
  return true;
}

void Scheduler::append_chunk(StepPlan& plan, uint64_t id, int64_t num_tokens, std::vector<int32_t> new_pages) {
  Sequence& sequence = sequences_.at(id);
  ScheduledChunk chunk;
  chunk.id = id;
  chunk.cache = sequence.cache;
  chunk.position = sequence.num_computed;
  chunk.num_tokens = num_tokens;
  chunk.samples = chunk.end() == sequence.length() && sequence.request.max_tokens > 0;
  if (sequence.judges_prompt()) {
    chunk.num_prompt_logits = std::min(chunk.end(), sequence.num_prompt() - 1) - chunk.position;
  }
  chunk.new_pages = std::move(new_pages);
  sequence.num_computed = chunk.end();
  if (chunk.samples) ++sequence.num_unknown;
  plan.chunks.push_back(std::move(chunk));
}

void Scheduler::continue_running(StepPlan& plan, std::vector<Room>& rooms) {
  for (const uint64_t id : running_) ++rooms[sequences_.at(id).cache].num_to_come;
  // Newer ones may leave on the way, older ones never do.
  for (size_t i = 0; i < running_.size(); ++i) {
    const uint64_t id = running_[i];
    Sequence& sequence = sequences_.at(id);
    Room& room = rooms[sequence.cache];
    --room.num_to_come;
    if (complete(sequence)) continue;
    // A long prompt leaves a token each to those behind it.
    int64_t num_tokens = std::min(sequence.length() - sequence.num_computed, room.tokens - room.num_to_come);
    if (sequence.judges_prompt()) num_tokens = std::min(num_tokens, max_prompt_logits);
    if (num_tokens <= 0) continue;
    const int64_t num_pages = pages_of(sequence.num_computed + num_tokens);
    std::vector<int32_t> new_pages;
    bool found = true;
    while (found && std::ssize(sequence.pages) < num_pages) {
      found = find_page(plan, rooms, id);
      if (!found) break;
      new_pages.push_back(pools_[sequence.cache].take());
      sequence.pages.push_back(new_pages.back());
    }
    if (!found) {
      --i;  // it is gone from its place
      continue;
    }
    room.tokens -= num_tokens;
    append_chunk(plan, id, num_tokens, std::move(new_pages));
  }
}

void Scheduler::extend_keys(Sequence& sequence, int64_t num_pages) {
  const std::span<const int32_t> tokens = sequence.tokens;
  for (int64_t i = std::ssize(sequence.keys); i < num_pages; ++i) {
    const auto page = tokens.subspan(i * options_.page_positions, options_.page_positions);
    sequence.keys.push_back(page_key(i > 0 ? sequence.keys.back() : PageKey(), page));
  }
}

std::span<const PageKey> Scheduler::shareable(Sequence& sequence) {
  if (!options_.enable_prefix_caching || sequence.judges_prompt()) return {};
  const int64_t num_pages = (std::ssize(sequence.tokens) - 1) / options_.page_positions;
  extend_keys(sequence, num_pages);
  return std::span<const PageKey>(sequence.keys).first(num_pages);
}

int64_t Scheduler::choose_cache(Sequence& sequence, const std::vector<Room>& rooms) {
  const auto keys = shareable(sequence);
  std::vector<int64_t> num_seqs(options_.num_caches);
  for (const uint64_t id : running_) ++num_seqs[sequences_.at(id).cache];
  int64_t best = -1;
  std::pair<int64_t, int64_t> best_rank;
  for (int64_t c = 0; c < options_.num_caches; ++c) {
    const auto match = pools_[c].match(keys);
    const int64_t num_free = pools_[c].num_free() - match.num_unused;
    if (rooms[c].preempted || rooms[c].tokens == 0 || num_seqs[c] >= options_.max_num_seqs) continue;
    if (pages_of(sequence.length()) - match.num_pages > num_free) continue;
    const std::pair rank{match.num_pages, num_free};
    if (best >= 0 && rank <= best_rank) continue;
    best = c;
    best_rank = rank;
  }
  return best;
}

void Scheduler::admit_waiting(StepPlan& plan, std::vector<Room>& rooms) {
  while (!waiting_.empty()) {
    const uint64_t id = waiting_.front();
    Sequence& sequence = sequences_.at(id);
    if (sequence.num_unknown > 0) return;  // preempted just now: its last token comes with the results of a step
    const int64_t cache = choose_cache(sequence, rooms);
    if (cache < 0) return;
    waiting_.pop_front();
    insert_in_order(running_, id);
    PagePool& pool = pools_[cache];
    sequence.cache = cache;
    sequence.pages = pool.share(shareable(sequence));
    sequence.num_published = std::ssize(sequence.pages);
    sequence.num_computed = sequence.num_published * options_.page_positions;
    if (!sequence.begun) cached_prompt_tokens_ += sequence.num_computed;
    sequence.begun = true;
    while (std::ssize(sequence.pages) < pages_of(sequence.length())) sequence.pages.push_back(pool.take());
    int64_t num_tokens = std::min(sequence.length() - sequence.num_computed, rooms[cache].tokens);
    if (sequence.judges_prompt()) num_tokens = std::min(num_tokens, max_prompt_logits);
    rooms[cache].tokens -= num_tokens;
    plan.admitted.push_back({id, cache});
    append_chunk(plan, id, num_tokens, sequence.pages);
  }
}

// What the plan writes may be shared from the next one on, which is carried out after it.
void Scheduler::publish(Sequence& sequence) {
  if (!options_.enable_prefix_caching) return;
  const int64_t known = std::min<int64_t>(sequence.num_computed, std::ssize(sequence.tokens));
  const int64_t num_pages = known / options_.page_positions;
  extend_keys(sequence, num_pages);
  for (; sequence.num_published < num_pages; ++sequence.num_published) {
    pools_[sequence.cache].publish(sequence.pages[sequence.num_published], sequence.keys[sequence.num_published]);
  }
}

StepPlan Scheduler::schedule() {
  StepPlan plan;
  plan.removed = std::exchange(removed_, {});
  std::vector<Room> rooms(options_.num_caches, Room{options_.max_num_batched_tokens});
  continue_running(plan, rooms);
  admit_waiting(plan, rooms);
  for (const ScheduledChunk& chunk : plan.chunks) publish(sequences_.at(chunk.id));
  return plan;
}

std::vector<SequenceProgress> Scheduler::update(const StepPlan& plan, const std::vector<int32_t>& tokens) {
  FARSKIP_CHECK(tokens.size() == plan.chunks.size(), "a token for each chunk");
  std::vector<SequenceProgress> result;
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    const ScheduledChunk& chunk = plan.chunks[i];
    const auto found = sequences_.find(chunk.id);
    if (found == sequences_.end()) continue;  // ended by the plan before, or cancelled
    Sequence& sequence = found->second;
    SequenceProgress progress{i, {}, FinishReason::none};
    if (chunk.samples) {
      --sequence.num_unknown;
      const auto& stops = sequence.request.stop_tokens;
      if (tokens[i] < 0) {
        progress.finished = FinishReason::error;
      } else if (std::find(stops.begin(), stops.end(), tokens[i]) != stops.end()) {
        progress.finished = FinishReason::stop;
      } else {
        progress.token = tokens[i];
        sequence.tokens.push_back(tokens[i]);
        const int64_t num_made = std::ssize(sequence.tokens) - sequence.num_prompt();
        if (num_made >= sequence.request.max_tokens || std::ssize(sequence.tokens) >= options_.max_model_len) {
          progress.finished = FinishReason::length;
        }
      }
    } else if (sequence.request.max_tokens == 0 && chunk.end() == sequence.num_prompt()) {
      progress.finished = FinishReason::length;
    }
    if (progress.finished != FinishReason::none) erase(chunk.id);
    if (progress.token || progress.finished != FinishReason::none) result.push_back(progress);
  }
  return result;
}

int64_t Scheduler::pages_used() const {
  int64_t sum = 0;
  for (const PagePool& pool : pools_) sum += pool.num_used();
  return sum;
}

void Scheduler::check() const {
  std::vector<std::map<int32_t, int64_t>> users(options_.num_caches);
  FARSKIP_CHECK(std::is_sorted(running_.begin(), running_.end()) && std::is_sorted(waiting_.begin(), waiting_.end()));
  FARSKIP_CHECK(running_.size() + waiting_.size() == sequences_.size(), "a sequence is lost");
  for (const uint64_t id : waiting_) {
    FARSKIP_CHECK(sequences_.at(id).cache < 0 && sequences_.at(id).pages.empty(), "a waiting sequence with pages");
  }
  for (const uint64_t id : running_) {
    const Sequence& sequence = sequences_.at(id);
    FARSKIP_CHECK(sequence.cache >= 0 && std::ssize(sequence.pages) >= pages_of(sequence.num_computed));
    for (const int32_t page : sequence.pages) {
      ++users[sequence.cache][page];
      // A page that may still be written to has one user.
      FARSKIP_CHECK(pools_[sequence.cache].num_users(page) == 1 ||
                        page != sequence.pages.at((sequence.num_computed - 1) / options_.page_positions) ||
                        sequence.num_computed % options_.page_positions == 0,
                    "a page that is not full is shared");
    }
  }
  for (int64_t c = 0; c < options_.num_caches; ++c) {
    pools_[c].check();
    for (int32_t page = 0; page < options_.num_pages; ++page) {
      const auto found = users[c].find(page);
      FARSKIP_CHECK(pools_[c].num_users(page) == (found == users[c].end() ? 0 : found->second), "users of a page");
    }
  }
}

}  // namespace farskip
