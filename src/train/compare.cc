#include "train/compare.h"

#include "base/files.h"
#include "base/log.h"
#include "data/trigram.h"
#include "data/vocabulary_record.h"
#include "tokenizer/tokenizer.h"
#include "trace/render.h"
#include "trace/report.h"
#include "train/run_page.h"

namespace farskip {

namespace {

/// Of the targets of the first `num_samples` samples; ends of documents are tokens without text.
double bytes_per_token(const GptDataset& text, const Tokenizer& tokenizer, int64_t num_samples) {
  int64_t num_bytes = 0, num_tokens = 0;
  for (int64_t i = 0; i < num_samples; ++i) {
    const std::vector<int32_t> tokens = text.get_sample(i);
    for (size_t at = 1; at < tokens.size(); ++at, ++num_tokens) {
      if (!tokenizer.is_special(tokens[at])) num_bytes += std::ssize(tokenizer.bytes_of(tokens[at], false));
    }
  }
  return static_cast<double>(num_bytes) / static_cast<double>(num_tokens);
}

}  // namespace

CompareResult compare(const CompareOptions& options, const TrainData& data, RankContext& context) {
  CompareResult result;
  const bool first = context.world.rank() == 0;
  const auto samples = [source = samples_of(data.train, data.masked), size = data.train->size()](int64_t i) {
    return source(i % size);  // the benchmark may take more steps than the training
  };
  BenchOptions bench{options.config, options.link, options.num_rounds, 2, samples};
  for (const std::string& connectivity : options.connectivities) {
    CompareResult::Run run{connectivity, {}, {}};
    bench.config.connectivity = connectivity;
    if (first) log_info(fmt::format("{}: blocking, overlapped and compute-only steps", connectivity));
    run.bench = bench_train(bench, context);
    bench.link = {run.bench.link_spec, 0};
    TrainConfig config = options.config;
    config.connectivity = connectivity;
    config.report.clear();  // the comparison's
    if (!options.output.empty()) config.export_folder = options.output + "/" + connectivity;
    context.link->set_spec(run.bench.link_spec);
    run.train = train(config, data, context);
    result.runs.push_back(std::move(run));
  }
  const auto train_text = std::dynamic_pointer_cast<const GptDataset>(data.train);
  const auto valid_text = std::dynamic_pointer_cast<const GptDataset>(data.valid);
  if (train_text && valid_text && first) {  // not for blends
    const auto num_samples = std::min(data.valid->size(), options.config.eval_iters * options.config.global_batch_size);
    const int64_t num_ids = load_model_config(options.config.model).vocab_size;
    result.trigram_loss = trigram_loss(*train_text, *valid_text, num_ids, num_samples);
    result.trigram_tokens = train_text->num_tokens();
    result.trained_tokens =
        options.config.batch_ramp().at(options.config.train_iters).consumed_samples * options.config.seq_length;
    if (!data.vocabulary.empty()) {
      const auto tokenizer = load_tokenizer(vocabulary_folder(data.vocabulary));
      result.bytes_per_token = bytes_per_token(*valid_text, *tokenizer, num_samples);
    }
  }
  return result;
}

std::string CompareResult::trigram_name() const { return bytes_per_token > 0 ? "token trigram" : "byte trigram"; }

Table CompareResult::table() const {
  Table table{{"figure"}, {}, {}};
  for (const Run& run : runs) table.columns.push_back(run.connectivity);
  auto row = [&](const std::string& name, auto&& text) {
    table.rows.push_back({name});
    for (const Run& run : runs) table.rows.back().push_back(text(run));
  };
  auto percent = [](const Estimate& hidden) { return fmt::format("{:.1f} %", 100 * hidden.value); };
  row("T_blocking, ms a step", [](const Run& r) { return fmt::format("{:.1f}", r.bench.t_blocking_ms.value); });
  row("T_overlapped", [](const Run& r) { return fmt::format("{:.1f}", r.bench.t_overlapped_ms.value); });
  row("T_compute", [](const Run& r) { return fmt::format("{:.1f}", r.bench.t_compute_ms.value); });
  row("bound", [](const Run& r) { return fmt::format("{:.1f}", r.bench.bound_ms); });
  row("hidden forward", [&](const Run& r) { return percent(r.bench.hidden_forward); });
  row("hidden backward", [&](const Run& r) { return percent(r.bench.hidden_backward); });
  row("hidden total", [&](const Run& r) { return percent(r.bench.hidden_total); });
  row("saved of what blocking waits", [](const Run& r) { return fmt::format("{:.1f} %", 100 * r.bench.saved.value); });
  row("efficiency (bound / overlapped)", [](const Run& r) { return fmt::format("{:.3f}", r.bench.efficiency.value); });
  row("speed-up over blocking", [](const Run& r) { return fmt::format("{:.3f}", r.bench.speedup.value); });
  row("training loss, last", [](const Run& r) { return fmt::format("{:.4f}", r.train.losses.back().second); });
  auto validation = [&](double per) {
    return [=](const Run& r) {
      const auto& losses = r.train.validation_losses;
      return losses.empty() ? "-" : fmt::format("{:.4f}", losses.back().second / per);
    };
  };
  auto trigram = [&](double per) {
    return [=, this](const Run&) { return fmt::format("{:.4f}", trigram_loss / per); };
  };
  row("validation loss", validation(1));
  if (bytes_per_token > 0) row("  in nats a byte", validation(bytes_per_token));
  if (trigram_loss > 0) row(trigram_name() + " on the same text", trigram(1));
  if (trigram_loss > 0 && bytes_per_token > 0) row("  in nats a byte", trigram(bytes_per_token));
  table.note = fmt::format(
      "Link {}. Hidden: of the communication of a step that some order could hide, median. Blocking and overlapped "
      "steps left the same "
      "bits "
      "in every weight.",
      runs.front().bench.link);
  if (trigram_loss > 0) {
    table.note += fmt::format(" The trigram counts all {} tokens of the training part, a run was trained on {}.",
                              trigram_tokens, trained_tokens);
  }
  return table;
}

void write_compare_report(const CompareOptions& options, const CompareResult& result, const std::string& path) {
  HtmlReport report("farskip compare: " + options.config.model, fmt::format("layout {}", options.config.layout));
  report.add_table(result.table());
  LineChart losses{"Loss on real text", "iteration", "nats per token", {}, false, false};
  for (const auto& run : result.runs) {
    Series training{run.connectivity + ", training", {}}, validation{run.connectivity + ", validation", {}};
    for (const auto& [i, loss] : run.train.losses) training.points.emplace_back(static_cast<double>(i), loss);
    for (const auto& [i, loss] : run.train.validation_losses)
      validation.points.emplace_back(static_cast<double>(i), loss);
    losses.series.push_back(std::move(training));
    if (!validation.points.empty()) losses.series.push_back(std::move(validation));
  }
  if (result.trigram_loss > 0) {
    losses.series.push_back(
        {result.trigram_name(),
         {{1, result.trigram_loss}, {static_cast<double>(options.config.train_iters), result.trigram_loss}}});
  }
  report.add_line_chart(losses);
  for (const auto& run : result.runs) {
    report.add_heading(run.connectivity);
    report.add_bar_chart(
        overlap_bars("Communication per collective, " + run.bench.schedule, run.bench.overlap, run.bench.num_rounds));
    report.add_table(overlap_table(run.bench.overlap, run.bench.num_rounds));
    report.add_timeline(render_svg({run.bench.simulated, run.bench.measured}),
                        "one step: simulated above, measured below, rank 0");
    report.add_heatmap(expert_load_heatmap(run.train.load));
  }
  write_file(path, report.html());
}

}  // namespace farskip
