#include "train/frontier.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "layer/training_graph.h"
#include "sim/search.h"
#include "trace/report.h"
#include "train/parameter_rates.h"

namespace farskip {
namespace {

/// "last=50%" -> "last-50": a name for a folder.
std::string folder_name(const std::string& connectivity) {
  std::string name;
  for (const char c : connectivity) {
    if (c == '%') continue;
    name += c == '=' || c == ',' || c == '@' ? '-' : c;
  }
  return name;
}

double figure(const nlohmann::json& held_out, const char* when, const char* name) {
  const auto& value = held_out.at(when).at(name);
  return value.is_number() ? value.get<double>() : 0;
}

std::string fixed(double value, int digits) { return fmt::format("{:.{}f}", value, digits); }

FrontierPoint distill_one(const FrontierOptions& options, const std::string& connectivity, const TrainData& data,
                          RankContext& context) {
  FrontierPoint point;
  point.connectivity = connectivity;
  TrainConfig config = options.config;
  const std::string folder = options.output + "/" + folder_name(connectivity);
  config.connectivity = connectivity;
  config.export_folder = folder;
  config.distill.result = folder + ".json";
  config.report.clear();
  config.log_file = folder + ".jsonl";
  point.held_out = train(config, data, context).held_out;
  return point;
}

/// Times of training steps of the student alone: its teacher is gone when it is used.
BenchResult time_one(const FrontierOptions& options, const std::string& connectivity, const BenchLink& link,
                     const TrainData& data, RankContext& context) {
  BenchOptions bench{options.config, link, options.num_rounds, 2,
                     [source = samples_of(data.train, data.masked), size = data.train->size()](int64_t i) {
                       return source(i % size);
                     }};
  bench.config.distill = DistillSettings();
  bench.config.connectivity = connectivity;
  bench.config.load.clear();
  bench.config.model = teacher_folder(options.config);
  bench.config.report.clear();
  return bench_train(bench, context);
}

double step_on_machine_ms(const TrainConfig& config, const ModelConfig& model, const Connectivity& connectivity,
                          const Machine& machine) {
  const StageGraph graph = build_graph(model, connectivity, training_graph(config, model));
  const Workload load = training_workload(config, frozen_weights(model, config));
  return search_schedule(graph, model_costs(graph, model, machine, load)).step_us / 1e3;
}

void recommend(FrontierResult& result, double bearable) {
  const auto speedup = result.machine.empty() ? &FrontierPoint::speedup : &FrontierPoint::machine_speedup;
  const std::string where = result.machine.empty() ? "" : " on " + result.machine;
  const FrontierPoint* best = nullptr;
  for (const FrontierPoint& point : result.points) {
    if (point.excess > bearable * result.teacher_loss) continue;
    if (best == nullptr || point.*speedup > best->*speedup) best = &point;
  }
  FARSKIP_CHECK(best != nullptr, "the teacher is no worse than itself");
  result.recommendation =
      best->teacher
          ? fmt::format("None: no student is within {:.1f} % of the teacher's cross-entropy and faster than {}{}.",
                        100 * bearable, best->connectivity, where)
          : fmt::format(
                "{}: {:.3f} times the speed of {}{}, cross-entropy {:+.4f} nats a token ({:+.2f} %; up to "
                "{:.1f} % are borne).",
                best->connectivity, best->*speedup, result.points.front().connectivity, where, best->excess,
                100 * best->excess / result.teacher_loss, 100 * bearable);
}

void add_chart(HtmlReport& report, const FrontierResult& result, const std::string& how,
               double FrontierPoint::*speedup) {
  LineChart chart{"Quality against speed, " + how,
                  "speed, times the teacher's graph",
                  "cross-entropy above the teacher's",
                  {},
                  false,
                  false};
  for (const FrontierPoint& point : result.points)
    chart.series.push_back({point.connectivity, {{point.*speedup, point.excess}}});
  report.add_line_chart(chart);
}

void write_page(const FrontierOptions& options, const FrontierResult& result) {
  HtmlReport report("farskip distill --frontier: " + options.config.distill.teacher,
                    fmt::format("layout {}, {} steps each", options.config.layout, options.config.train_iters));
  report.add_paragraph(result.recommendation);
  add_chart(report, result, "measured on this machine", &FrontierPoint::speedup);
  if (!result.machine.empty())
    add_chart(report, result, "simulated on " + result.machine, &FrontierPoint::machine_speedup);
  report.add_table(result.table());
  write_file(options.output + "/frontier.html", report.html());
}

}  // namespace

FrontierResult frontier(const FrontierOptions& options, const TrainData& data, RankContext& context) {
  if (!data.valid) fail("a frontier needs held-out text; split={} leaves none", options.config.split);
  const bool first = context.world.rank() == 0;
  if (first) create_parent_folders(options.output + "/frontier.json");
  const TeacherModel teacher = TeacherModel::load(options.config);
  FrontierResult result;
  FrontierPoint own;
  own.connectivity = teacher.connectivity.to_string();
  own.teacher = true;
  const auto simulate_on_machine = [&](FrontierPoint& point, const Connectivity& connectivity) {
    if (options.machine)
      point.machine_step_ms = step_on_machine_ms(options.config, teacher.config, connectivity, *options.machine);
  };
  if (options.machine) result.machine = options.machine->name;
  simulate_on_machine(own, teacher.connectivity);
  BenchLink link = options.link;
  own.bench = time_one(options, own.connectivity, link, data, context);
  link = {own.bench.link_spec, 0};
  result.points.push_back(std::move(own));
  for (const std::string& connectivity : options.connectivities) {
    const Connectivity student = Connectivity::parse(connectivity, teacher.config.num_layers());
    if (student == teacher.connectivity) continue;
    if (first) log_info(fmt::format("frontier: {}", connectivity));
    FrontierPoint point = distill_one(options, connectivity, data, context);
    point.bench = time_one(options, connectivity, link, data, context);
    simulate_on_machine(point, student);
    const FrontierPoint& of_teacher = result.points.front();
    point.speedup = of_teacher.bench.t_overlapped_ms.value / point.bench.t_overlapped_ms.value;
    point.simulated_speedup = of_teacher.bench.simulated_overlapped_ms / point.bench.simulated_overlapped_ms;
    if (options.machine) point.machine_speedup = of_teacher.machine_step_ms / point.machine_step_ms;
    result.teacher_loss = figure(point.held_out, "best", "teacher_cross_entropy");
    point.excess = figure(point.held_out, "best", "cross_entropy") - result.teacher_loss;
    result.points.push_back(std::move(point));
  }
  if (result.points.size() < 2) fail("no connectivity but the teacher's own: there is nothing to compare");
  recommend(result, options.bearable);
  if (!first) return result;
  write_file(options.output + "/frontier.json", result.to_json().dump(1) + "\n");
  write_page(options, result);
  return result;
}

Table FrontierResult::table() const {
  Table table{{"connectivity", "KL untrained", "KL", "cross-entropy", "above teacher", "same top-1", "blocking, ms",
               "overlapped, ms", "speed", "simulated"},
              {},
              ""};
  if (!machine.empty()) table.columns.insert(table.columns.end(), {machine + ", ms", "speed"});
  for (const FrontierPoint& point : points) {
    const auto of = [&](const char* when, const char* name, int digits, double factor = 1) {
      return fixed(factor * figure(point.held_out, when, name), digits);
    };
    std::vector<std::string> row = {point.connectivity};
    if (point.teacher) {
      row.insert(row.end(), {"-", "0", fixed(teacher_loss, 4), "0", "100.0 %"});
    } else {
      row.insert(row.end(), {of("initial", "kl", 4), of("best", "kl", 4), of("best", "cross_entropy", 4),
                             fixed(point.excess, 4), of("best", "top1_agreement", 1, 100) + " %"});
    }
    row.insert(row.end(), {fixed(point.bench.t_blocking_ms.value, 1), fixed(point.bench.t_overlapped_ms.value, 1),
                           fixed(point.speedup, 3), fixed(point.simulated_speedup, 3)});
    if (!machine.empty()) row.insert(row.end(), {fixed(point.machine_step_ms, 3), fixed(point.machine_speedup, 3)});
    table.rows.push_back(std::move(row));
  }
  table.note = fmt::format(
      "Held-out text, best weights of each run. Speed: of training steps of the student alone in its best order, "
      "against the teacher's graph in its best order; link {}.{}",
      points.front().bench.link, machine.empty() ? "" : " On " + machine + " both are simulated.");
  return table;
}

nlohmann::json FrontierResult::to_json() const {
  nlohmann::json json{
      {"teacher_cross_entropy", teacher_loss}, {"machine", machine}, {"recommendation", recommendation}};
  for (const FrontierPoint& point : points) {
    json["points"].push_back({{"connectivity", point.connectivity},
                              {"teacher", point.teacher},
                              {"held_out", point.held_out},
                              {"excess", point.excess},
                              {"speedup", point.speedup},
                              {"simulated_speedup", point.simulated_speedup},
                              {"machine_step_ms", point.machine_step_ms},
                              {"machine_speedup", point.machine_speedup},
                              {"bench", point.bench.to_json()}});
  }
  return json;
}

}  // namespace farskip
