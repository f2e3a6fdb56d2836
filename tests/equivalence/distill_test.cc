// Distillation: teacher and student in one stage graph compute what each computes alone, in any order, on any number of
// ranks, with the gradients of whole-graph autograd; and a pair that is no pair is refused.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "base/error.h"
#include "model/plain_model.h"
#include "nn/loss.h"
#include "schedule/schedule.h"
#include "tests/equivalence/trial.h"
#include "train/held_out.h"

namespace farskip::test {
namespace {

using ::testing::HasSubstr;

constexpr int64_t length = 8, num_ids = 48;

/// With some targets that do not count.
SampleSource masked_samples() {
  const SampleSource samples = synthetic_samples(length, num_ids, 11);
  return [samples](int64_t i) {
    TrainSample sample = samples(i);
    sample.loss_mask.assign(length, 1);
    for (int64_t t = 0; t < i % 4; ++t) sample.loss_mask[static_cast<size_t>(t)] = 0;
    return sample;
  };
}

/// The folder of a model with drawn weights and the trial's family, under a connectivity.
std::string make_teacher(const std::string& model, const std::string& connectivity) {
  const Trial trial{.model = model, .connectivity = connectivity, .layout = {}};
  const std::string folder = fmt::format("{}farskip_distill/{}_{}", ::testing::TempDir(), model, connectivity);
  on_ranks(trial, [&](World& world) { make_session(trial, world).export_model(folder); });
  return folder;
}

TrainConfig distilling(const Trial& trial, const std::string& teacher) {
  TrainConfig config = trial.config();
  config.distill.teacher = config.model = teacher;
  config.lr = 1e-3;
  config.moe_router_load_balancing_type = LoadBalancing::none;
  config.moe_router_bias_update_rate = 0;
  return config;
}

/// Losses, gradients and figures of some steps on one rank.
Bits run_steps(const TrainConfig& config, World& world, const Order& order, int num_steps) {
  TrainingSession session(config, world, masked_samples());
  const Schedule schedule = order(session.graph(), session.model().config);
  Bits bits;
  for (int step = 0; step < num_steps; ++step) {
    append_step(bits, step, session.step(step, schedule), session);
    const DistillStats& stats = *session.stats().distill;
    std::vector<double> figures = {stats.kl, stats.cross_entropy, stats.top1, stats.hidden, stats.router};
    figures.insert(figures.end(), stats.drift.begin(), stats.drift.end());
    bits.emplace_back(fmt::format("step{}.figures", step), hash_of(at::tensor(figures, at::kDouble)));
  }
  session.gather_weights();
  append_weights(bits, session.parameters());
  return bits;
}

struct Case {
  std::string model = "moonlight";
  bool terms = false;  ///< hidden states and routers too
  std::string recompute = {};
  bool sharded = false;
  bool bf16 = false;
};

TEST(Distill, EveryOrderLeavesTheSameBits) {
  std::vector<Order> orders = {reference_order()};
  for (const char* name : {"paper", "search", "async", "1f1b", "two-batch", "two-models"})
    orders.push_back(named_order(name));
  for (uint64_t seed = 0; seed < 6; ++seed) orders.push_back(random_order(seed));
  for (const Case& c :
       std::vector<Case>{{}, {"qwen3", true}, {"v2", true, "full"}, {"moonlight", true, "", true, true}}) {
    const std::string teacher = make_teacher(c.model, "standard");
    const Layout layout = c.sharded ? Layout{.ep = 2, .dp = 2} : Layout{.ep = 2};
    const Trial trial{
        .model = c.model, .layout = layout, .bf16 = c.bf16, .sharded = c.sharded, .recompute = c.recompute};
    TrainConfig config = distilling(trial, teacher);
    config.distill.hidden_weight = c.terms ? 0.3 : 0;
    config.distill.router_weight = c.terms ? 0.2 : 0;
    config.distill.cross_entropy_weight = c.terms ? 0.1 : 0;
    on_ranks(trial, [&](World& world) {
      const Bits expected = run_steps(config, world, orders[0], 2);
      for (size_t i = 1; i < orders.size(); ++i) {
        const Bits bits = run_steps(config, world, orders[i], 2);
        ASSERT_EQ(bits.size(), expected.size());
        for (size_t b = 0; b < bits.size(); ++b)
          ASSERT_EQ(bits[b], expected[b]) << c.model << ", order " << i << ": " << bits[b].first;
      }
      // What is compared can differ.
      TrainConfig other = config;
      other.distill.temperature = 1.5;
      EXPECT_NE(run_steps(other, world, orders[0], 2), expected);
    });
  }
}

/// Values of a forward pass, copied: the loss writes over the teacher's logits.
std::map<std::string, at::Tensor> values_of(TrainingSession& session, const StageMath* teacher, const StageGraph& graph,
                                            const StageMath& math, const Order& order) {
  std::map<std::string, at::Tensor> values;
  ExecutorOptions options;
  options.teacher = teacher;
  options.observe = [&](const Value& value, const at::Tensor& tensor) {
    if (tensor.is_floating_point()) values[value.name] = tensor.clone();
  };
  Executor executor(graph, order(graph, session.model().config), math, session.communicators(), options);
  auto batches = session.batches(0);
  batches.resize(1);
  executor.run(std::move(batches));
  return values;
}

TEST(Distill, EachModelComputesInTheSharedGraphWhatItComputesAlone) {
  for (const char* model : {"moonlight", "qwen3", "v2"}) {
    const std::string folder = make_teacher(model, "standard");
    const Trial trial{.model = model, .layout = {.ep = 2}};
    on_ranks(trial, [&](World& world) {
      const TrainConfig config = distilling(trial, folder);
      TrainingSession session(config, world, masked_samples());
      const Teacher teacher(config, TeacherModel::load(config), session.parameters().options(), session.layout(),
                            *session.communicators().world);
      const ModelConfig& shape = session.model().config;
      GraphOptions options{.layout = session.layout(), .scope = Scope::forward};
      const auto graph_of = [&](const char* connectivity) {
        return build_graph(shape, Connectivity::parse(connectivity, shape.num_layers()), options);
      };
      StageMathOptions plain;
      plain.expert_ranks = 2;
      const StageMath alone(shape, session.parameters().weights(), length, plain);
      const StageGraph standard = graph_of("standard"), farskip = graph_of("farskip");
      const auto of_standard = values_of(session, nullptr, standard, alone, reference_order());
      const auto of_farskip = values_of(session, nullptr, farskip, alone, reference_order());
      options.teacher = Connectivity::standard(shape.num_layers());
      const StageGraph shared = graph_of("farskip");
      for (const char* order : {"reference", "two-models", "search"}) {
        const auto values = values_of(session, &teacher.math(), shared, session.math(), named_order(order));
        EXPECT_TRUE(at::equal(values.at("mb0.teacher.logits"), of_standard.at("mb0.logits"))) << model << order;
        EXPECT_TRUE(at::equal(values.at("mb0.logits"), of_farskip.at("mb0.logits"))) << model << order;
        EXPECT_FALSE(at::equal(values.at("mb0.logits"), values.at("mb0.teacher.logits"))) << "one graph for both";
      }
    });
  }
}

TEST(Distill, GradientsAreThoseOfWholeGraphAutograd) {
  for (const char* model : {"v2", "qwen3", "moonlight"}) {
    const std::string folder = make_teacher(model, "standard");
    const Trial trial{.model = model, .layout = {}};
    on_ranks(trial, [&](World& world) {
      TrainConfig config = distilling(trial, folder);
      config.connectivity = "farskip";
      config.distill.temperature = 1.5;
      config.distill.cross_entropy_weight = 0.25;
      TrainingSession session(config, world, masked_samples());
      ParameterSet& parameters = session.parameters();
      std::vector<at::Tensor> expected(static_cast<size_t>(parameters.size()));
      double loss = 0, counted = 0;
      for (const Batch& batch : session.batches(0))
        counted += batch.targets.ne(nn::ignored_target).sum().item<double>();
      for (const Batch& batch : session.batches(0)) {
        const nn::ModelWeights weights = differentiable_copy(parameters);
        const auto logits = [&](const Connectivity& connectivity) {
          return plain_forward(session.model().config, connectivity, weights, batch, {}).logits.flatten(0, 1);
        };
        const at::Tensor student = logits(session.model().connectivity);
        const at::Tensor teacher = logits(Connectivity::standard(session.model().config.num_layers())).detach();
        const at::Tensor targets = batch.targets.flatten(), counts = targets.ne(nn::ignored_target).to(at::kFloat);
        const at::Tensor log_p = (teacher / 1.5).log_softmax(-1), log_q = (student / 1.5).log_softmax(-1);
        const at::Tensor kl = (log_p.exp() * (log_p - log_q)).sum(-1);
        const at::Tensor ce = -student.log_softmax(-1).gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
        const at::Tensor sum = ((0.75 * 1.5 * 1.5 * kl + 0.25 * ce) * counts).sum() / counted;
        sum.backward();
        loss += sum.item<double>();
        const auto grads = gradients(parameters.table(), weights);
        for (size_t id = 0; id < grads.size(); ++id)
          expected[id] = expected[id].defined() ? expected[id] + grads[id] : grads[id];
      }
      session.step(0, random_schedule(session.graph(), 3));
      EXPECT_NEAR(session.stats().loss, loss, 1e-5 * loss) << model;
      EXPECT_GT(loss, 0.01) << "a student that is its teacher learns nothing";
      for (const ParameterInfo& info : parameters.table().parameters()) {
        const at::Tensor& found = parameters.main_grad(info.id);
        const double size = expected[static_cast<size_t>(info.id)].norm().item<double>();
        EXPECT_LE((found - expected[static_cast<size_t>(info.id)]).norm().item<double>(), 2e-4 * size) << info.name;
      }
    });
  }
}

struct WholeDistillation {
  std::vector<double> kl, drift;
  std::map<std::string, at::Tensor> weights;
};

WholeDistillation distill_whole(const Layout& layout, const std::string& folder, const std::string& model) {
  const Trial trial{.model = model, .layout = layout, .num_microbatches = 4 / layout.world()};
  WholeDistillation whole;
  std::mutex mutex;
  on_ranks(trial, [&](World& world) {
    at::set_num_threads(1);
    TrainConfig config = distilling(trial, folder);
    config.distill.hidden_weight = 0.3;
    config.distill.router_weight = 0.2;
    TrainingSession session(config, world, masked_samples());
    for (int step = 0; step < 3; ++step) {
      session.step(step, named_order("two-models")(session.graph(), session.model().config));
      if (world.rank() == 0) whole.kl.push_back(session.stats().distill->kl);
    }
    const Evaluation evaluation = session.evaluate(masked_samples(), 6);  // not a whole number of rounds of 4 ranks
    const std::lock_guard lock(mutex);
    whole.weights.merge(named_pieces(session.parameters(), false));
    if (world.rank() > 0) return;
    whole.kl.push_back(evaluation.distill->kl);
    whole.drift = evaluation.distill->drift;
    EXPECT_EQ(evaluation.loss, evaluation.distill->cross_entropy);
    EXPECT_EQ(evaluation.distill->num_tokens, 6 * length - (0 + 1 + 2 + 3 + 0 + 1));
  });
  return whole;
}

TEST(Distill, RanksComeToTheSameResult) {
  for (const char* model : {"moonlight", "qwen3"}) {
    const std::string folder = make_teacher(model, "standard");
    const WholeDistillation one = distill_whole({}, folder, model), replicas = distill_whole({.dp = 4}, folder, model);
    EXPECT_EQ(one.kl, replicas.kl) << "data parallelism adds the same terms in the same order";
    EXPECT_EQ(one.drift, replicas.drift);
    for (const auto& [name, weight] : one.weights) EXPECT_TRUE(at::equal(weight, replicas.weights.at(name))) << name;
    for (const Layout& layout : {Layout{.dp = 2}, Layout{.ep = 2}, Layout{.ep = 2, .dp = 2}}) {
      const WholeDistillation several = distill_whole(layout, folder, model);
      for (size_t i = 0; i < one.kl.size(); ++i) EXPECT_NEAR(several.kl[i], one.kl[i], 1e-4 * one.kl[i]);
      for (const auto& [name, weight] : one.weights) {
        const double difference = (several.weights.at(name) - weight).abs().max().item<double>();
        EXPECT_LE(difference, 2e-3) << name << ": of three steps of 1e-3";
      }
    }
  }
}

/// The message of what `make` throws; empty: nothing.
std::string refusal(const std::function<void()>& make) {
  try {
    make();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Distill, WeightsRunUnderTheGraphThatTheyBelongToOrNotAtAll) {
  const std::string standard = make_teacher("moonlight", "standard"), skipping = make_teacher("moonlight", "farskip");
  TrainConfig config = distilling({.layout = {}}, standard);
  config.connectivity.clear();
  const TrainingModel chosen = TrainingModel::load(config);
  EXPECT_EQ(chosen.connectivity.to_string(), "last=3");  // of 4 layers the first is dense
  EXPECT_THAT(chosen.reason, HasSubstr("layer 0 is dense"));
  EXPECT_TRUE(chosen.teacher->connectivity.is_standard());

  config.distill.teacher_connectivity = "farskip";
  EXPECT_THAT(refusal([&] { TrainingModel::load(config); }),
              HasSubstr("its weights were trained with connectivity standard"));
  config.distill.teacher_connectivity = "standard";
  config.connectivity = "standard";
  EXPECT_THAT(refusal([&] { TrainingModel::load(config); }), HasSubstr("there is nothing to learn"));
  config.load = skipping;
  EXPECT_THAT(refusal([&] { TrainingModel::load(config); }), HasSubstr("connectivity belongs to the weights"));
  config.connectivity.clear();
  EXPECT_EQ(TrainingModel::load(config).connectivity.to_string(), "farskip") << "as the student's folder says";

  TrainConfig swapped = distilling({.layout = {}}, skipping);
  swapped.connectivity.clear();
  swapped.load = standard;
  EXPECT_THAT(refusal([&] { TrainingModel::load(swapped); }), HasSubstr("the pair exchanged"));
  TrainConfig foreign = distilling({.layout = {}}, make_teacher("v2", "standard"));
  foreign.connectivity.clear();
  foreign.load = standard;
  EXPECT_THAT(refusal([&] { TrainingModel::load(foreign); }), HasSubstr("both have to be of one shape"));
}

TEST(Distill, FurtherTermsFallAndFrozenWeightsStay) {
  const std::string folder = make_teacher("moonlight", "standard");
  const Trial trial{.layout = {}};
  on_ranks(trial, [&](World& world) {
    TrainConfig config = distilling(trial, folder);
    config.train_iters = 40;
    config.distill.hidden_weight = 1;
    config.distill.hidden_decay_iters = 20;
    config.distill.router_weight = 1;
    config.freeze = "*.mlp.gate.weight model.embed_tokens.weight";
    config.lr_multipliers = "*.self_attn.*=0 *.o_proj.weight=1";
    EXPECT_EQ(config.distill.hidden_weight_at(10, 40), 0.5);
    EXPECT_EQ(config.distill.hidden_weight_at(30, 40), 0);
    TrainingSession session(config, world, masked_samples());
    const auto before = named_pieces(session.parameters(), false);
    double first_hidden = 0, first_kl = 0;
    for (int step = 0; step < 40; ++step) {
      session.step(step, reference_schedule(session.graph()));
      const DistillStats& stats = *session.stats().distill;
      if (step > 0) continue;
      first_hidden = stats.hidden;
      first_kl = stats.kl;
      EXPECT_GT(stats.router, 0);
      EXPECT_NEAR(session.stats().loss, stats.kl + stats.hidden, 1e-5) << "routers are trained beside the loss";
    }
    EXPECT_LT(session.stats().distill->hidden, 0.9 * first_hidden);
    EXPECT_LT(session.stats().distill->kl, 0.9 * first_kl);
    int changed = 0;
    for (const auto& [name, weight] : named_pieces(session.parameters(), false)) {
      const bool frozen = name.ends_with(".mlp.gate.weight") || name == "model.embed_tokens.weight" ||
                          (name.find(".self_attn.") != std::string::npos && !name.ends_with("o_proj.weight"));
      EXPECT_EQ(at::equal(weight, before.at(name)), frozen) << name;
      changed += !frozen;
    }
    EXPECT_GT(changed, 10);
  });
  TrainConfig config = distilling(trial, folder);
  config.freeze = "*.no_such_tensor";
  EXPECT_THAT(
      refusal([&] { on_ranks(trial, [&](World& world) { TrainingSession(config, world, masked_samples()); }); }),
      HasSubstr("no tensor matches '*.no_such_tensor'"));
  config.freeze = "*.experts.3.*";
  EXPECT_THAT(
      refusal([&] { on_ranks(trial, [&](World& world) { TrainingSession(config, world, masked_samples()); }); }),
      HasSubstr("that are one parameter here"));
}

TEST(Distill, TheBestWeightsAreKept) {
  const std::string folder = make_teacher("moonlight", "standard");
  const Trial trial{.layout = {.ep = 2}};
  on_ranks(trial, [&](World& world) {
    TrainConfig config = distilling(trial, folder);
    config.distill.patience = 2;
    TrainingSession session(config, world, masked_samples());
    HeldOutWatch watch(config, session);
    const auto evaluate = [&] { return *session.evaluate(masked_samples(), 4).distill; };
    watch.heed(0, evaluate());
    for (int step = 0; step < 5; ++step) session.step(step, reference_schedule(session.graph()));
    const DistillStats good = evaluate();
    watch.heed(5, good);
    EXPECT_EQ(watch.best_iteration(), 5) << "five steps have helped";
    const at::NoGradGuard no_grad;
    for (int id = 0; id < session.parameters().size(); ++id) session.parameters().main(id).mul_(1.5);
    session.parameters().update_values();
    watch.heed(6, evaluate());
    EXPECT_FALSE(watch.over_patience());
    watch.heed(7, evaluate());
    EXPECT_TRUE(watch.over_patience());
    EXPECT_GT(evaluate().kl, 2 * good.kl);
    watch.bring_back();
    EXPECT_EQ(evaluate().kl, good.kl);
    HeldOutWatch restored(config, session);
    restored.from_json(watch.to_json());
    EXPECT_TRUE(restored.over_patience());
    EXPECT_EQ(restored.figures()["best"]["iteration"], 5);
    EXPECT_THROW(restored.from_json(nlohmann::json::object()), Error);
  });
}

}  // namespace
}  // namespace farskip::test
