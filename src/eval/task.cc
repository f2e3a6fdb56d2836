#include "eval/task.h"

#include <algorithm>

#include "base/error.h"
#include "base/sha256.h"
#include "eval/task_file.h"

namespace farskip {
namespace {

constexpr const char* delimiter = " ";  // between a question and its answer, as in lm-evaluation-harness
constexpr const char* blanks = " \t\r\n";

int64_t num_characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xC0) != 0x80; });
}

/// What a sequence must begin with so that its first token of text can be judged (or because texts of the format do).
std::vector<int32_t> beginning(const TaskText& text, bool needed) {
  if (!needed && !text.always_begins()) return {};
  const int32_t token = text.begin_token();
  if (token < 0) return {};
  return {token};
}

std::string with_delimiter(const std::string& choice) {
  return choice.find_first_of(blanks) == 0 ? choice : delimiter + choice;
}

/// `continuation` behind `context`, tokenised together; blanks at the end of the context count as the continuation's.
ScoredSequence scored_behind(const TaskText& text, const std::string& context, const std::string& continuation) {
  const std::string kept = context.substr(0, context.find_last_not_of(blanks) + 1);
  const std::string rest = context.substr(kept.size()) + continuation;
  ScoredSequence result;
  result.tokens = beginning(text, kept.empty());
  const auto own = text.encode(kept), all = text.encode(kept + rest);
  const int64_t before = std::ssize(result.tokens);
  result.tokens.insert(result.tokens.end(), all.begin(), all.end());
  // Without a token before it the first cannot be judged.
  result.first = std::max<int64_t>(1, before + std::ssize(own));
  return result;
}

/// Keeps as many of the last tokens as the model has positions.
void truncate(ScoredSequence& sequence, const JsonReader& fields, const SetOptions& options, EvalTask& task) {
  const int64_t surplus = sequence.num_inputs() - options.max_positions;
  if (sequence.num_scored() < 1) fields.refuse("nothing is left to be judged: the text has no token of its own");
  if (surplus <= 0) return;
  if (surplus >= sequence.first) {
    fields.refuse(fmt::format("{} tokens to be judged; the model has {} positions", sequence.num_scored(),
                              options.max_positions));
  }
  sequence.tokens.erase(sequence.tokens.begin(), sequence.tokens.begin() + surplus);
  sequence.first -= surplus;
  ++task.num_truncated;
}

/// Questions of the few-shot file with their answers, each followed by an empty line.
std::string fewshot_prefix(TaskKind kind, const SetOptions& options) {
  if (options.fewshot.empty()) return "";
  std::string prefix;
  int64_t num = 0;
  for_each_line(options.fewshot, options.num_fewshot, [&](const nlohmann::json& object, const JsonReader& fields) {
    ++num;
    if (kind == TaskKind::choices) {
      const ChoiceQuestion question = read_choices(object, fields);
      prefix += question.context + with_delimiter(question.choices[question.gold]) + "\n\n";
    } else {
      const AnswerQuestion question = read_answer(fields);
      prefix += question.context + delimiter + question.solution + "\n\n";
    }
  });
  if (num < options.num_fewshot) {
    fail("{}: {} questions, but {} are to stand before each one; ask for fewer or give more", options.fewshot, num,
         options.num_fewshot);
  }
  return prefix;
}

EvalTask new_task(TaskKind kind, const std::string& name, const std::string& file, const SetOptions& options) {
  EvalTask task;
  task.kind = kind;
  task.name = name;
  task.file = file;
  if (options.limit > 0) task.settings["limit"] = options.limit;
  if (!options.fewshot.empty()) task.settings["num_fewshot"] = options.num_fewshot;
  return task;
}

void add(Sha256& sha, const std::vector<int32_t>& tokens) {
  const int64_t size = std::ssize(tokens);
  sha.update(&size, sizeof size);
  sha.update(tokens.data(), tokens.size() * sizeof(int32_t));
}

}  // namespace

const char* to_string(TaskKind kind) {
  switch (kind) {
    case TaskKind::text:
      return "text";
    case TaskKind::pairs:
      return "pairs";
    case TaskKind::choices:
      return "choices";
    case TaskKind::answers:
      return "answers";
  }
  return "";
}

std::string EvalTask::digest() const {
  Sha256 sha;
  for (const EvalItem& item : items) {
    for (const ScoredSequence& sequence : item.scored) {
      add(sha, sequence.tokens);
      sha.update(&sequence.first, sizeof sequence.first);
    }
    add(sha, item.prompt);
    const std::string rest = fmt::format("{}\n{}\n{}\n{}\n", item.group, item.num_bytes, item.gold, item.answer);
    sha.update(rest.data(), rest.size());
  }
  return sha.hex();
}

EvalTask text_task(const std::string& name, const std::string& file, const std::vector<int32_t>& tokens,
                   const TaskText& text, int64_t vocab_size, const TextTaskOptions& options) {
  const int64_t window = options.window, stride = options.stride > 0 ? options.stride : window;
  if (stride > window) {
    fail("a stride of {} tokens would pass over some: windows have {}; choose a stride of 1 to {}", stride, window,
         window);
  }
  std::vector<int32_t> all = beginning(text, true);
  const int64_t begun = std::ssize(all);
  all.insert(all.end(), tokens.begin(), tokens.end());
  for (int64_t i = begun; i < std::ssize(all); ++i) {
    if (all[i] < 0 || all[i] >= vocab_size)
      fail("{}: token {} is {}, outside the model's vocabulary of {}", file, i - begun, all[i], vocab_size);
  }
  const int64_t num = std::ssize(all);
  if (num < 2) fail("{}: {} tokens; at least {} are needed", file, tokens.size(), 2 - begun);
  EvalTask task;
  task.kind = TaskKind::text;
  task.name = name;
  task.file = file;
  task.settings = {{"window", window}, {"stride", stride}};
  for (int64_t begin = 1, end = 0; begin < num; begin = end) {
    end = std::min(num, begin + (begin == 1 ? window : stride));
    const int64_t start = std::max<int64_t>(0, end - 1 - window);
    EvalItem item;
    item.scored.push_back({{all.begin() + start, all.begin() + end}, begin - start});
    for (int64_t i = begin; i < end; ++i) item.num_bytes += text.num_bytes(all[i]);
    task.items.push_back(std::move(item));
  }
  return task;
}

EvalTask pairs_task(const std::string& name, const std::string& file, const TaskText& text, const SetOptions& options) {
  EvalTask task = new_task(TaskKind::pairs, name, file, options);
  for_each_line(file, options.limit, [&](const nlohmann::json&, const JsonReader& fields) {
    EvalItem item;
    for (const char* key : {"sentence_good", "sentence_bad"}) {
      item.scored.push_back(scored_behind(text, "", required_text(fields, key)));
      truncate(item.scored.back(), fields, options, task);
    }
    if (fields.has("UID")) item.group = fields.text("UID", "");
    task.items.push_back(std::move(item));
  });
  return task;
}

EvalTask choices_task(const std::string& name, const std::string& file, const TaskText& text,
                      const SetOptions& options) {
  EvalTask task = new_task(TaskKind::choices, name, file, options);
  const std::string prefix = fewshot_prefix(TaskKind::choices, options);
  for_each_line(file, options.limit, [&](const nlohmann::json& object, const JsonReader& fields) {
    const ChoiceQuestion question = read_choices(object, fields);
    EvalItem item;
    for (const std::string& choice : question.choices) {
      item.scored.push_back(scored_behind(text, prefix + question.context, with_delimiter(choice)));
      truncate(item.scored.back(), fields, options, task);
      item.lengths.push_back(num_characters(choice));
    }
    item.gold = question.gold;
    task.items.push_back(std::move(item));
  });
  return task;
}

EvalTask answers_task(const std::string& name, const std::string& file, const TaskText& text,
                      const SetOptions& options) {
  EvalTask task = new_task(TaskKind::answers, name, file, options);
  task.max_new_tokens = options.max_new_tokens;
  task.stops = options.stops.empty() ? std::vector<std::string>{"Question:"} : options.stops;
  task.settings["max_new_tokens"] = task.max_new_tokens;
  task.settings["stops"] = task.stops;
  const int64_t room = options.max_positions - options.max_new_tokens;
  if (room < 1) {
    fail("{} new tokens leave no room for a question: the model has {} positions", options.max_new_tokens,
         options.max_positions);
  }
  const std::string prefix = fewshot_prefix(TaskKind::answers, options);
  for_each_line(file, options.limit, [&](const nlohmann::json&, const JsonReader& fields) {
    const AnswerQuestion question = read_answer(fields);
    EvalItem item;
    item.prompt = beginning(text, false);
    const auto tokens = text.encode(prefix + question.context);
    item.prompt.insert(item.prompt.end(), tokens.begin(), tokens.end());
    if (const int64_t surplus = std::ssize(item.prompt) - room; surplus > 0) {
      item.prompt.erase(item.prompt.begin(), item.prompt.begin() + surplus);
      ++task.num_truncated;
    }
    item.answer = question.answer;
    item.marked = question.marked;
    task.items.push_back(std::move(item));
  });
  return task;
}

}  // namespace farskip
