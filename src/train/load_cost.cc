#include "train/load_cost.h"

#include <ATen/ATen.h>

#include "base/error.h"
#include "base/log.h"
#include "base/process_memory.h"
#include "base/progress.h"

namespace farskip {

void log_load_cost(const std::string& folder, const LoadReport& report, Transport& world) {
  const std::vector<double> figures = {static_cast<double>(report.bytes_read), report.seconds,
                                       static_cast<double>(peak_resident_bytes())};
  at::Tensor all = at::tensor(figures, at::kDouble);  // [3], then [ranks * 3]
  if (world.size() > 1) all = world.all_gather(all, "load cost").await();
  if (world.rank() != 0) return;
  const at::Tensor most = std::get<0>(all.view({-1, 3}).max(0));
  const auto rate = static_cast<int64_t>(figures[0] / std::max(report.seconds, 1e-9));
  std::string text =
      fmt::format("{}: {} of {} read in {}, {}/s; peak resident memory {}", folder, format_bytes(report.bytes_read),
                  format_bytes(report.bytes_in_folder), format_duration(report.seconds), format_bytes(rate),
                  format_bytes(static_cast<int64_t>(figures[2])));
  if (world.size() > 1) {
    text += fmt::format(
        "; of {} ranks at most {}, {}, {}", world.size(), format_bytes(static_cast<int64_t>(most[0].item<double>())),
        format_duration(most[1].item<double>()), format_bytes(static_cast<int64_t>(most[2].item<double>())));
  }
  log_info(text);
  if (!report.unused().empty()) log_info(fmt::format("{}: {}", folder, report.unused()));
  if (report.num_rounded > 0) {
    log_warning(
        fmt::format("{}: {} frozen tensors are of a finer type there than `dtype`, in which they are held and "
                    "will be saved (counted on rank 0)",
                    folder, report.num_rounded));
  }
}

}  // namespace farskip
