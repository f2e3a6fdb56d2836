// farskip serve DIR: OpenAI's API over a model on one or several ranks.

#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>

#include "base/error.h"
#include "base/log.h"
#include "base/process_memory.h"
#include "cli/command.h"
#include "cli/torch_model_options.h"
#include "cli/torch_served_model.h"
#include "serve/api_server.h"
#include "serve/client_socket.h"
#include "serve/stop_signal.h"
#include "train/launch.h"

namespace farskip::cli {
namespace {

struct ServeArguments {
  ModelArguments model;
  std::string layout, transport = "auto", chat_template, schedule = "paper";
  std::vector<std::string> names;
  EngineOptions engine;
  serve::ApiServerOptions server;
  double timeout_s = 300, shutdown_timeout_s = 30;
};

/// Ends the server and then the engine, at a signal or when the engine has ended by itself.
class Watcher {
 public:
  Watcher(serve::ApiServer& server, Engine& engine, double grace_s)
      : thread_([this, &server, &engine, grace_s] {
          while (!serve::stop_requested() && !engine_ended_) std::this_thread::sleep_for(std::chrono::milliseconds(20));
          if (!engine_ended_) log_info("no more requests are taken; those that run are finished");
          server.shut_down(engine_ended_ ? kFailureGrace_s : grace_s);
          engine.stop();
        }) {}
  ~Watcher() {
    engine_ended_ = true;
    thread_.join();
  }

 private:
  static constexpr double kFailureGrace_s = 5;  ///< for answers that tell of the failure
  std::atomic<bool> engine_ended_ = false;
  std::thread thread_;
};

/// Why the engine ended, for other threads.
class Failure {
 public:
  void set(const std::string& text) {
    const std::lock_guard lock(mutex_);
    text_ = text;
  }
  std::string get() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

void serve_model(const ServeArguments& arguments, const InferenceModel& model, Engine& engine) {
  const ModelText text(model.folder(), arguments.model.tokenizer, model.config());
  serve::ServedModel served = served_model(text, model.config(), arguments.chat_template);
  served.names = arguments.names.empty() ? std::vector<std::string>{arguments.model.model} : arguments.names;
  served.end_tokens = all_end_tokens(model, text);
  Failure failure;
  serve::ApiServerOptions options = arguments.server;
  options.failure = [&failure] { return failure.get(); };
  options.max_sequences = arguments.engine.max_num_seqs + arguments.engine.max_num_waiting;
  serve::ApiServer server(engine, std::move(served), options);
  const std::string& host = options.http.host;
  std::printf("%s\n", fmt::format("serving {} at http://{}:{}", arguments.model.model,
                                  host.find(':') == std::string::npos ? host : "[" + host + "]", server.port())
                          .c_str());
  std::fflush(stdout);
  const Watcher watcher(server, engine, arguments.shutdown_timeout_s);
  try {
    engine.run();
  } catch (const std::exception& error) {
    failure.set(error.what());
    throw;
  }
}

void run_serve(const ServeArguments& arguments) {
  keep_freed_memory();
  LaunchOptions launch;
  const Layout layout = layout_of_ranks(arguments.layout, 0, launch, [](int) { return Layout{}; });
  launch.transport = transport_of(arguments.transport);
  launch.timeout_s = arguments.timeout_s;
  launch.ends_by_signal = true;
  serve::watch_stop_signals();
  const int status = run_on_ranks(launch, [&](RankContext& context) {
    const int rank = context.world.rank();
    // Before the model is read, which may take long.
    if (rank == 0) const serve::Listener free_port(arguments.server.http.host, arguments.server.http.port);
    const InferenceModel model = load_model(arguments.model, layout, rank);
    EngineOptions options = arguments.engine;
    options.form = named_form(arguments.schedule);
    Engine engine(model, context.world, options);
    rank == 0 ? serve_model(arguments, model, engine) : engine.run();
  });
  if (status != 0) throw CLI::RuntimeError(status);
}

}  // namespace

void add_serve(CLI::App& app) {
  auto arguments = std::make_shared<ServeArguments>();
  CLI::App* command = app.add_subcommand("serve", "Serve a model by OpenAI's API");
  add_model_options(*command, arguments->model);
  serve::ApiServerOptions& server = arguments->server;
  server.http.host = "127.0.0.1";
  command->add_option("--host", server.http.host, "Address to listen at; 0.0.0.0: all of this machine")
      ->capture_default_str();
  command->add_option("--port", server.http.port, "0: any that is free")
      ->capture_default_str()
      ->check(CLI::Range(0, 65535));
  command->add_option("--api-key", server.api_key, "What clients must send: Authorization: Bearer KEY");
  command->add_option("--served-model-name", arguments->names, "Names of the model for clients (default: as given)");
  command->add_option("--chat-template", arguments->chat_template, "File with a template, instead of the tokenizer's");
  command->add_option("--layout", arguments->layout, "Ranks: tp=N, ep=N (see farskip show); default: one");
  command
      ->add_option("--schedule", arguments->schedule,
                   "Order of a step's stages: reference, async, paper\n(collectives under computation), two-batch")
      ->capture_default_str()
      ->check(CLI::IsMember({"reference", "async", "paper", "two-batch"}));
  command->add_option("--transport", arguments->transport, "auto: ranks are threads, or a launcher's processes")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "loopback", "gloo", "nccl"}));
  command->add_option("--timeout", arguments->timeout_s, "Seconds without a rank before requests end with an error")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  EngineOptions& engine = arguments->engine;
  command->add_option("--max-model-len", engine.max_model_len, "Positions of a sequence (default: as config.json says)")
      ->check(CLI::PositiveNumber);
  command->add_option("--max-num-seqs", engine.max_num_seqs, "Sequences in a step")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--max-num-batched-tokens", engine.max_num_batched_tokens,
                   "Tokens in a step: longer prompts are read in parts")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  engine.max_num_waiting = 1024;
  command->add_option("--max-num-waiting", engine.max_num_waiting, "Sequences that may wait; then clients get 503")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--cache-positions", engine.cache_positions, "Positions of all sequences (default: at least 16384)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", engine.enable_prefix_caching,
                    "Keep what prompts have in common (default: on)");
  command->add_option("--max-connections", server.http.max_connections, "Clients at a time, a thread each")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--shutdown-timeout", arguments->shutdown_timeout_s,
                   "Seconds that running requests have to finish after SIGTERM or SIGINT")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->callback([arguments] { run_serve(*arguments); });
}

}  // namespace farskip::cli
