// The kernels that norm.cuh names: cells of rows and of columns, and the application of statistics and parameters.
// float16, bfloat16 and float32 are computed in float32, float64 in float64. A thread's own values come in chunks whose
// mean and squared deviations are taken in registers in two steps; chunks, threads and warps are joined pairwise, cells
// in float64 (norm.cuh), so the error is that of kernels/cpu's layer_norm and batch_norm, measured by the same rows.
// Bytes: x for moments, x + dy for sums of gradients; x + y or x + dy + dx to apply. 2 to 4 packs in flight a thread.
#include "kernels/cuda/norm.cuh"

namespace tw::cuda {
namespace {

constexpr int kThreads = 256;

template <class A> struct Moments {
  A n = 0, mean = 0, m2 = 0;
  TW_DEVICE void join(A other_n, A other_mean, A other_m2) {
    const A total = n + other_n;
    if (total == 0) return;
    const A d = other_mean - mean, share = other_n / total;
    mean += d * share;
    m2 += other_m2 + d * d * n * share;
    n = total;
  }
};

TW_DEVICE int64_t statistic(const NormView& v, int64_t q) {
  const int64_t o = divide(q, v.params);
  return o * v.stat_step + divide(q - o * v.params, v.per_stat);
}

// A piece of a run to kGroup threads: with kOnce it fits one pack a thread.
template <class A, int kGroup, bool kOnce, bool kGradient>
__global__ void __launch_bounds__(kThreads)
    row_cells(NormView v, RowWeights weights, int64_t piece, int64_t pieces, bool aligned, A* cells) {
  constexpr int P = kOnce ? 1 : kGradient ? 2 : 4, kStep = kGroup * kPack<A>, kWarps = kThreads / 32;
  TW_SHARED(shared, A[3 * kWarps]);
  const int64_t all = v.outer * v.params * pieces;
  const int64_t wanted = blockIdx.x * int64_t{kThreads / kGroup} + threadIdx.x / kGroup, cell = least(wanted, all - 1);
  const int64_t q = pieces == 1 ? cell : divide(cell, pieces), begin = (cell - q * pieces) * piece,
                n = least(piece, v.run - begin);
  const int64_t start = q * v.run + begin, head = start % kPack<A>, origin = start - head, end = head + n;
  const int64_t first = threadIdx.x % kGroup * kPack<A>;
  A result[2];
  if constexpr (kGradient) {
    const A mean = static_cast<const A*>(v.mean)[statistic(v, q)];
    A s0 = 0, s1 = 0;
    for (int64_t c = first; c < end; c += P * kStep) {
      const auto place = [&](int p) { return span<A>(origin, head, end, c + p * kStep); };
      A both[2][P][kPack<A>];
      load_tensors<A, 2, P>(both, {v.x, v.dy}, v.dtype, aligned, A(0), place);
      auto &x = both[0], &g = both[1];
      if (weights.w) {
        A w[P][kPack<A>];
        load_params<A, P>(w, weights.w, v.param_dtype, weights.aligned, q % weights.rows * weights.params, weights.run,
                          [&](int p) { return span<A>(begin - head, head, end, c + p * kStep); });
#pragma unroll
        for (int p = 0; p < P; ++p)
#pragma unroll
          for (int j = 0; j < kPack<A>; ++j) g[p][j] *= w[p][j];
      }
#pragma unroll
      for (int p = 0; p < P; ++p) {
        s0 += fold(g[p], SumOp());
#pragma unroll
        for (int j = 0; j < kPack<A>; ++j) x[p][j] = place(p).has(j) ? g[p][j] * (x[p][j] - mean) : A(0);
        s1 += fold(x[p], SumOp());
      }
    }
    result[0] = reduce_group<SumOp, kGroup>(s0, shared);
    result[1] = reduce_group<SumOp, kGroup>(s1, shared + kWarps);
  } else if constexpr (kOnce) {
    const auto place = [&](int) { return span<A>(origin, head, end, first); };
    A x[1][kPack<A>];
    load_packs<A, 1>(x, v.x, v.dtype, aligned, A(0), place);
    result[0] = v.rms ? A(0) : reduce_group<SumOp, kGroup>(fold(x[0], SumOp()), shared) / A(n);
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j) {
      const A d = place(0).has(j) ? x[0][j] - result[0] : A(0);
      x[0][j] = d * d;
    }
    result[1] = reduce_group<SumOp, kGroup>(fold(x[0], SumOp()), shared + kWarps);
  } else {
    Moments<A> m;
    for (int64_t c = first; c < end; c += P * kStep) {
      const auto place = [&](int p) { return span<A>(origin, head, end, c + p * kStep); };
      A x[P][kPack<A>], sum = 0, m2 = 0;
      load_packs<A, P>(x, v.x, v.dtype, aligned, A(0), place);
      int count = 0;
#pragma unroll
      for (int p = 0; p < P; ++p) {
        count += greatest(place(p).hi - place(p).lo, 0);
        sum += fold(x[p], SumOp());
      }
      const A mean = v.rms || count == 0 ? A(0) : sum / A(count);
#pragma unroll
      for (int p = 0; p < P; ++p) {
#pragma unroll
        for (int j = 0; j < kPack<A>; ++j) {
          const A d = place(p).has(j) ? x[p][j] - mean : A(0);
          x[p][j] = d * d;
        }
        m2 += fold(x[p], SumOp());
      }
      m.join(A(count), mean, m2);
    }
#pragma unroll
    for (int step = least(kGroup, 32) / 2; step > 0; step /= 2)
      m.join(__shfl_xor_sync(kFullMask, m.n, step), __shfl_xor_sync(kFullMask, m.mean, step),
             __shfl_xor_sync(kFullMask, m.m2, step));
    if constexpr (kGroup > 32) {
      const int warp = threadIdx.x / 32;
      if (threadIdx.x % 32 == 0) shared[3 * warp] = m.n, shared[3 * warp + 1] = m.mean, shared[3 * warp + 2] = m.m2;
      __syncthreads();
      m = {shared[0], shared[1], shared[2]};
      for (int i = 1; i < kWarps; ++i) m.join(shared[3 * i], shared[3 * i + 1], shared[3 * i + 2]);
    }
    result[0] = m.mean, result[1] = m.m2;
  }
  if (threadIdx.x % kGroup > 0 || wanted >= all) return;
  cells[2 * cell] = result[0];
  cells[2 * cell + 1] = result[1];
}

// Threads of a block as (rows, lanes): a thread has a pack of columns in every `rows`-th row of its part.
struct Place {
  int lane, row, rows;
  int64_t column, first, last;  // of the part's rows
  int count;                    // columns of the pack that are there
  TW_DEVICE Place(const ColumnParts& parts, int64_t outer, int64_t width, int pack) {
    lane = threadIdx.x % parts.lanes;
    row = threadIdx.x / parts.lanes;
    rows = kThreads / parts.lanes;
    const int64_t part = blockIdx.x / parts.blocks;
    column = (blockIdx.x - part * parts.blocks) * parts.lanes * pack + lane * pack;
    first = part * parts.rows;
    last = least(outer, first + parts.rows);
    count = int(greatest<int64_t>(0, least<int64_t>(pack, width - column)));
  }
  TW_DEVICE Span span(int64_t r, int64_t width) const { return {r * width + column, 0, r < last ? count : 0}; }
};

// item(row, x, g) for a thread's rows of a part, P packs of x (and, with T 2, of dy; else g is x) in flight; then
// after(x, places) for each P of them.
template <class A, int T, int P, class Item, class After>
TW_DEVICE void each_row(const NormView& v, const Place& at, bool aligned, const Item& item, const After& after) {
  const int64_t width = v.params * v.run;
  for (int64_t r = at.first + at.row; r < at.last; r += P * at.rows) {
    const auto place = [&](int p) { return at.span(r + p * at.rows, width); };
    A values[T][P][kPack<A>];
    if constexpr (T == 2) load_tensors<A, 2, P>(values, {v.x, v.dy}, v.dtype, aligned, A(0), place);
    else load_tensors<A, 1, P>(values, {v.x}, v.dtype, aligned, A(0), place);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      if (r + p * at.rows >= at.last) break;
      item(r + p * at.rows, values[0][p], values[T - 1][p]);
    }
    after(values[0], place);
  }
}

template <class A, bool kGradient>
__global__ void __launch_bounds__(kThreads) column_cells(NormView v, ColumnParts parts, bool aligned, A* cells) {
  constexpr int L = kPack<A>;
  TW_SHARED(shared, A[kThreads][2 * L]);
  const int64_t width = v.params * v.run;
  const Place at(parts, v.outer, width, L);
  A first[L] = {}, second[L] = {}, mean[L] = {}, rstd[L];
  int64_t stat[L];
  if constexpr (kGradient) {
#pragma unroll
    for (int j = 0; j < L; ++j) {
      stat[j] = j < at.count ? (at.column + j) / v.run / v.per_stat : 0;
      rstd[j] = 1;
      if (v.stat_step == 0) mean[j] = static_cast<const A*>(v.mean)[stat[j]];
    }
  }
  A n = 0;
  const auto add = [&](int64_t row, A(&x)[L], A(&g)[L]) {
    if constexpr (kGradient) {
      if (v.stat_step > 0) {
#pragma unroll
        for (int j = 0; j < L; ++j) {
          const int64_t s = row * v.stat_step + stat[j];
          mean[j] = static_cast<const A*>(v.mean)[s];
          rstd[j] = static_cast<const A*>(v.rstd)[s];
        }
      }
#pragma unroll
      for (int j = 0; j < L; ++j) {
        first[j] += g[j];
        second[j] += g[j] * ((x[j] - mean[j]) * rstd[j]);
      }
    } else {
      n += 1;
      const A share = A(1) / n;
#pragma unroll
      for (int j = 0; j < L; ++j) {
        const A d = x[j] - first[j];
        first[j] += d * share;
        second[j] += d * (x[j] - first[j]);
      }
    }
  };
  each_row<A, kGradient ? 2 : 1, kGradient ? 2 : 4>(v, at, aligned, add, [](const auto&, const auto&) {});
#pragma unroll
  for (int j = 0; j < L; ++j) shared[threadIdx.x][2 * j] = first[j], shared[threadIdx.x][2 * j + 1] = second[j];
  __syncthreads();
  const int c = threadIdx.x, lane = c / L, item = 2 * (c % L);
  const int64_t column = at.column - at.lane * L + c;
  if (c >= parts.lanes * L || column >= width) return;
  const auto rows_of = [&](int row) {
    return A(greatest<int64_t>(0, ceil_div<int64_t>(at.last - at.first - row, at.rows)));
  };
  Moments<A> m{rows_of(0), shared[lane][item], shared[lane][item + 1]};
  for (int row = 1; row < at.rows; ++row) {
    const A *s = shared[row * parts.lanes + lane] + item, s0 = s[0], s1 = s[1];
    if constexpr (kGradient) m.mean += s0, m.m2 += s1;
    else m.join(rows_of(row), s0, s1);
  }
  const int64_t cell = blockIdx.x / parts.blocks * width + column;
  cells[2 * cell] = m.mean;
  cells[2 * cell + 1] = m.m2;
}

// Coefficients of one run or column, and what is done with them.
template <class A, bool kBackward> struct Coefficients {
  A mean, rstd, scale, other, slope;  // other: b forward, shift backward
  TW_DEVICE void load_param(const NormView& v, int64_t param) {
    scale = v.w ? load_item<A>(v.w, v.param_dtype, param) : A(1);
    if constexpr (!kBackward) other = v.b ? load_item<A>(v.b, v.param_dtype, param) : A(0);
  }
  TW_DEVICE void load_statistic(const NormView& v, int64_t stat) {
    mean = static_cast<const A*>(v.mean)[stat];
    rstd = static_cast<const A*>(v.rstd)[stat];
    if constexpr (kBackward) {
      other = static_cast<const A*>(v.slopes)[2 * stat];
      slope = static_cast<const A*>(v.slopes)[2 * stat + 1];
    }
  }
  TW_DEVICE void load(const NormView& v, int64_t o, int64_t param) {
    load_param(v, param);
    load_statistic(v, o * v.stat_step + (v.per_stat == 1 ? param : divide(param, v.per_stat)));
  }
  TW_DEVICE A apply(A x, A dy) const {
    if constexpr (kBackward) return rstd * ((dy * scale - other) - (x - mean) * slope);
    else return fma((x - mean) * rstd, scale, other);
  }
};

// Runs of at least a pack: a pack a thread, over at most two runs. Below 2^31 items, places come by multiplication.
template <class A, bool kBackward>
__global__ void __launch_bounds__(kThreads) apply_flat(NormView v, Divisor run, Divisor params, bool aligned) {
  const int64_t total = v.outer * v.params * v.run, i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kPack<A>;
  if (i >= total) return;
  const auto place = [&](int) { return span<A>(0, 0, total, i); };
  A values[kBackward ? 2 : 1][1][kPack<A>];
  if constexpr (kBackward) load_tensors<A, 2, 1>(values, {v.x, v.dy}, v.dtype, aligned, A(0), place);
  else load_tensors<A, 1, 1>(values, {v.x}, v.dtype, aligned, A(0), place);
  auto &x = values[0], &g = values[kBackward];
  const int64_t q = run.divisor ? int64_t(run.quotient(uint32_t(i))) : i / v.run;
  int64_t o = run.divisor ? int64_t(params.quotient(uint32_t(q))) : q / v.params;
  int64_t param = q - o * v.params;
  Coefficients<A, kBackward> k;
  k.load(v, o, param);
  const int left = int(least<int64_t>((q + 1) * v.run - i, kPack<A>));  // of run q
#pragma unroll
  for (int j = 0; j < kPack<A>; ++j)
    if (j < left) x[0][j] = k.apply(x[0][j], g[0][j]);
  if (left < kPack<A> && i + left < total) {
    if (++param == v.params) param = 0, ++o;
    k.load(v, o, param);
#pragma unroll
    for (int j = 0; j < kPack<A>; ++j)
      if (j >= left) x[0][j] = k.apply(x[0][j], g[0][j]);
  }
  store_packs<A, 1>(x, v.y, v.dtype, aligned, place);
}

template <class A, bool kBackward>
__global__ void __launch_bounds__(kThreads, 2) apply_columns(NormView v, ColumnParts parts, bool aligned) {
  constexpr int L = kPack<A>;
  const Place at(parts, v.outer, v.params * v.run, L);
  if (at.count == 0) return;
  Coefficients<A, kBackward> k[L];
  int64_t stat[L];
#pragma unroll
  for (int j = 0; j < L; ++j) {
    const int64_t param = (at.column + least(j, at.count - 1)) / v.run;
    stat[j] = param / v.per_stat;
    k[j].load_param(v, param);
    if (v.stat_step == 0) k[j].load_statistic(v, stat[j]);
  }
  each_row<A, kBackward ? 2 : 1, kBackward ? 1 : 2>(  // what two blocks have registers for
      v, at, aligned,
      [&](int64_t row, A(&x)[L], A(&g)[L]) {
#pragma unroll
        for (int j = 0; j < L; ++j) {
          if (v.stat_step > 0) k[j].load_statistic(v, row * v.stat_step + stat[j]);
          x[j] = k[j].apply(x[j], g[j]);
        }
      },
      [&](const auto& x, const auto& place) { store_packs<A, kBackward ? 1 : 2>(x, v.y, v.dtype, aligned, place); });
}

template <class A, bool kGradient> void rows_of(const NormView& v, const RowWeights& weights, A* cells) {
  const RowPieces pieces(v.run);
  const int64_t all = v.outer * v.params * pieces.count, n = pieces.size + kPack<A> - 1;
  const bool aligned = all_aligned({v.x, kGradient ? v.dy : nullptr});
  const auto go = [&](auto group, auto once) {
    constexpr int kGroup = decltype(group)::value;
    launch_kernel<row_cells<A, kGroup, decltype(once)::value, kGradient>>(
        static_cast<unsigned>(ceil_div<int64_t>(all, kThreads / kGroup)), kThreads, 0, current_stream(), v, weights,
        pieces.size, pieces.count, aligned, cells);
  };
  if (n <= 8 * kPack<A>) go(std::integral_constant<int, 8>(), std::true_type());
  else if (n <= 32 * kPack<A>) go(std::integral_constant<int, 32>(), std::true_type());
  else if (n <= 256 * kPack<A>) go(std::integral_constant<int, 32>(), std::false_type());
  else go(std::integral_constant<int, kThreads>(), std::false_type());
}

template <class A, bool kGradient> void columns_of(const NormView& v, A* cells) {
  const int64_t width = v.params * v.run;
  const ColumnParts parts(v.outer, width, kPack<A>);
  const bool aligned = width % kPack<A> == 0 && all_aligned({v.x, kGradient ? v.dy : nullptr});
  launch_kernel<column_cells<A, kGradient>>(static_cast<unsigned>(parts.count * parts.blocks), kThreads, 0,
                                            current_stream(), v, parts, aligned, cells);
}

template <class A, bool kBackward> void apply(const NormView& v) {
  const int64_t width = v.params * v.run, total = v.outer * width;
  const bool aligned = all_aligned({v.x, v.y, kBackward ? v.dy : nullptr});
  if (v.run < kMinRun) {
    const ColumnParts parts(v.outer, width, kPack<A>);
    return launch_kernel<apply_columns<A, kBackward>>(static_cast<unsigned>(parts.count * parts.blocks), kThreads, 0,
                                                      current_stream(), v, parts, aligned && width % kPack<A> == 0);
  }
  Divisor run{}, params{};
  if (total < int64_t{1} << 31)
    run = Divisor(static_cast<uint32_t>(v.run)), params = Divisor(static_cast<uint32_t>(v.params));
  launch_kernel<apply_flat<A, kBackward>>(static_cast<unsigned>(ceil_div<int64_t>(total, kThreads * kPack<A>)),
                                          kThreads, 0, current_stream(), v, run, params, aligned);
}

}  // namespace

// About 1024 blocks, by the shape alone: several for each multiprocessor of any GPU, with a few rows a thread at least.
ColumnParts::ColumnParts(int64_t outer, int64_t width, int pack) {
  const int64_t packs = ceil_div<int64_t>(width, pack);
  for (lanes = 1; lanes < 32 && lanes < packs;) lanes *= 2;
  blocks = ceil_div<int64_t>(packs, lanes);
  const int64_t step = kThreads / lanes;
  rows = greatest<int64_t>(8, ceil_div(outer, step * ceil_div<int64_t>(1024, blocks))) * step;
  count = ceil_div(outer, rows);
}

void row_moments(const NormView& v, void* cells) {
  visit_arithmetic(v.dtype, [&](auto zero) {
    using A = decltype(zero);
    rows_of<A, false>(v, {}, static_cast<A*>(cells));
  });
}
void row_gradients(const NormView& v, const RowWeights& weights, void* cells) {
  visit_arithmetic(v.dtype, [&](auto zero) {
    using A = decltype(zero);
    rows_of<A, true>(v, weights, static_cast<A*>(cells));
  });
}
void column_moments(const NormView& v, void* cells) {
  visit_arithmetic(v.dtype, [&](auto zero) {
    using A = decltype(zero);
    columns_of<A, false>(v, static_cast<A*>(cells));
  });
}
void column_gradients(const NormView& v, void* cells) {
  visit_arithmetic(v.dtype, [&](auto zero) {
    using A = decltype(zero);
    columns_of<A, true>(v, static_cast<A*>(cells));
  });
}
void apply_norm(const NormView& v, bool backward) {
  visit_arithmetic(v.dtype, [&](auto zero) {
    using A = decltype(zero);
    if (backward) apply<A, true>(v);
    else apply<A, false>(v);
  });
}

}  // namespace tw::cuda
