// The choice of CUDA kernels, without a GPU: every capability, type, width, number of rows and head
// size finds a kernel whose shared memory the capability has.

#include "kernels/cuda/choose.h"

#include <gtest/gtest.h>

#include "kernels/cuda/ring_stages.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kCapabilities[] = {80, 86, 89, 90, 100, 120};

struct Format {
  DType dtype;
  int32_t group;
};
constexpr Format kFormats[] = {{DType::kF32, 0},    {DType::kBF16, 0},     {DType::kF16, 0},
                               {DType::kF8E4M3, 0}, {DType::kF8E4M3, 128}, {DType::kInt4, 32},
                               {DType::kInt4, 96},  {DType::kInt4, 128},   {DType::kInt4, 1024},
                               {DType::kMxfp4, 32}};

template <class Visit>
void EveryShape(const Visit& visit) {
  for (const Format& format : kFormats) {
    for (const int64_t k : {1, 7, 16, 40, 96, 1024, 2880, 4096, 8192, 14336, 28672, 53248, 96000}) {
      if (format.dtype >= DType::kInt4 && k % format.group != 0) continue;
      for (const int64_t rows : {1, 2, 8, 16, 17, 32, 33, 64, 128, 129, 8192}) {
        for (const ExpertRows experts :
             {ExpertRows::kNone, ExpertRows::kEach, ExpertRows::kGrouped}) {
          for (const bool aligned : {false, true}) {
            visit(ProductShape{format.dtype, format.group, 4096, k, 128, rows, experts, false,
                               aligned});
          }
        }
      }
    }
  }
}

TEST(ChooseTest, EveryProductFindsAKernelThatFits) {
  for (const int capability : kCapabilities) {
    EveryShape([&](const ProductShape& s) {
      const ProductVariant* v = ChooseProduct(capability, s);
      ASSERT_NE(v, nullptr) << capability << " " << DTypeName(s.dtype) << " k " << s.k << " rows "
                            << s.rows;
      EXPECT_NE(v->types & 1u << static_cast<int>(s.dtype), 0u);
      EXPECT_EQ(s.k % v->multiple_k, 0) << v->name;
      EXPECT_TRUE(s.aligned || v->kernel == ProductKernel::kGeneric) << v->name;
      EXPECT_LE(v->shared + v->shared_a_column * s.k, SharedLimit(capability)) << v->name;
    });
  }
}

TEST(ChooseTest, NoKernelOfConsumerCardsAsksForMoreThan99KiB) {
  for (const int capability : {86, 89, 120}) {
    EXPECT_EQ(SharedLimit(capability), 99 << 10);
    EveryShape([&](const ProductShape& s) {
      const ProductVariant* v = ChooseProduct(capability, s);
      EXPECT_LE(v->shared + v->shared_a_column * s.k, 99 << 10) << v->name << " k " << s.k;
    });
  }
}

TEST(ChooseTest, TypesWithFastKernelsGetThem) {
  for (const int capability : kCapabilities) {
    for (const Format& format : kFormats) {
      if (format.dtype == DType::kF32 || format.dtype == DType::kF16 || format.group == 96)
        continue;
      for (const int64_t rows : {1, 16, 17, 4096}) {
        const ProductShape s{format.dtype, format.group, 4096, 4096, 1, rows};
        EXPECT_NE(ChooseProduct(capability, s)->kernel, ProductKernel::kGeneric)
            << DTypeName(format.dtype) << " " << rows;
      }
      EXPECT_TRUE(NormsItself(capability, {format.dtype, format.group, 4096, 4096, 1, 1}));
    }
  }
}

TEST(ChooseTest, WhatRotatesIsChosenForFewRowsOnly) {
  ProductShape s{DType::kInt4, 128, 6144, 4096, 1, 64};
  s.qkv = true;
  EXPECT_EQ(ChooseProduct(90, s)->kernel, ProductKernel::kQuantBatch);
  s.rows = 1;
  EXPECT_EQ(ChooseProduct(90, s)->kernel, ProductKernel::kStream);
  s.rows = 65;
  EXPECT_EQ(ChooseProduct(90, s), nullptr);
}

// An argument that a kernel would not look at: a batch of normed rows finds none, and one whose
// rows are picked another one.
TEST(ChooseTest, WhatAKernelDoesNotDoIsNotLeftToIt) {
  for (const int capability : kCapabilities) {
    EveryShape([&](ProductShape s) {
      s.norm = true;
      const ProductVariant* v = ChooseProduct(capability, s);
      EXPECT_TRUE(v == nullptr || v->norms) << v->name;
      s.norm = false;
      s.picks = true;
      v = ChooseProduct(capability, s);
      ASSERT_NE(v, nullptr) << DTypeName(s.dtype) << " k " << s.k << " rows " << s.rows;
      EXPECT_NE(v->kernel, ProductKernel::kQuantBatch) << s.rows;
    });
    ProductShape batch{DType::kInt4, 128, 4096, 4096, 1, 16};
    EXPECT_EQ(ChooseProduct(capability, batch)->kernel, ProductKernel::kQuantBatch);
    batch.norm = true;
    EXPECT_EQ(ChooseProduct(capability, batch), nullptr);
    batch.norm = false;
    batch.picks = true;
    EXPECT_EQ(ChooseProduct(capability, batch)->kernel, ProductKernel::kQuantTile);
  }
}

TEST(ChooseTest, SeveralRowsAreStreamedUpToAWidth) {
  const auto kernel = [](const Format& format, int64_t rows, int64_t k,
                         ExpertRows experts = ExpertRows::kNone) {
    return ChooseProduct(90, {format.dtype, format.group, 4096, k, 8, rows, experts})->kernel;
  };
  for (const Format& format : kFormats) {
    if (format.dtype < DType::kF8E4M3 || format.group == 96) continue;
    for (const int64_t k : {4096, 8192}) {
      EXPECT_EQ(kernel(format, 4, k), ProductKernel::kStream) << DTypeName(format.dtype) << k;
      EXPECT_EQ(kernel(format, 5, k), ProductKernel::kQuantBatch) << DTypeName(format.dtype) << k;
    }
    EXPECT_EQ(kernel(format, 1, 14336), ProductKernel::kStream) << DTypeName(format.dtype);
    EXPECT_EQ(kernel(format, 2, 14336), ProductKernel::kQuantBatch) << DTypeName(format.dtype);
    EXPECT_EQ(kernel(format, 64, 14336, ExpertRows::kEach), ProductKernel::kStream);
  }
  EXPECT_EQ(kernel({DType::kBF16, 0}, 8, 4096), ProductKernel::kStream);
  EXPECT_EQ(kernel({DType::kBF16, 0}, 2, 14336), ProductKernel::kStream);
}

TEST(ChooseTest, OnlyTheBatchedProductOfFp8TakesF16Rows) {
  for (const int capability : kCapabilities) {
    EveryShape([&](ProductShape s) {
      s.halves = true;
      const ProductVariant* v = ChooseProduct(capability, s);
      if (v == nullptr) return;
      EXPECT_EQ(v->kernel, ProductKernel::kQuantBatch) << v->name;
      EXPECT_EQ(s.dtype, DType::kF8E4M3);
    });
    EXPECT_TRUE(ChooseProduct(capability, {DType::kF8E4M3, 0, 4096, 4096, 1, 16})->halves);
  }
}

TEST(ChooseTest, EveryHeadSizeFindsAKernel) {
  for (const int capability : kCapabilities) {
    for (int32_t head = 1; head <= 1024; ++head) {
      const AttentionVariant* v = ChooseAttention(capability, head);
      ASSERT_NE(v, nullptr) << head;
      EXPECT_EQ(v->kernel == AttentionKernel::kTile, head == 64 || head == 128 || head == 256);
    }
    EXPECT_EQ(ChooseAttention(capability, 1025), nullptr);
  }
}

// What is chosen by the number of rows adds up alike: one family of kernels for each matrix, none
// that norms or rotates on the way for some numbers of rows only.
TEST(ChooseTest, InvariantProductsAreOfOneFamily) {
  for (const int capability : kCapabilities) {
    EveryShape([&](ProductShape s) {
      s.invariant = true;
      const ProductVariant* v = ChooseProduct(capability, s);
      ASSERT_NE(v, nullptr) << DTypeName(s.dtype) << " k " << s.k << " rows " << s.rows;
      EXPECT_TRUE(v->invariant) << v->name;
      EXPECT_FALSE(NormsItself(capability, s)) << v->name;
      EXPECT_LE(v->shared + v->shared_a_column * s.k, SharedLimit(capability)) << v->name;
      ProductShape many = s;
      many.rows = 8192;
      many.experts = ExpertRows::kGrouped;
      const auto family = [](const ProductVariant& of) {
        return of.kernel == ProductKernel::kBatch ? ProductKernel::kTile : of.kernel;
      };
      EXPECT_EQ(family(*v), family(*ChooseProduct(capability, many)));
      s.qkv = true;
      EXPECT_EQ(ChooseProduct(capability, s), nullptr);
    });
    for (const int32_t head : {16, 64, 80, 128, 256}) {
      EXPECT_TRUE(ChooseAttention(capability, head, true)->invariant);
      EXPECT_NE(ChooseAttention(capability, head, true)->kernel, AttentionKernel::kTile);
    }
  }
}

// Stages of 24 KiB and 12 KiB of scales: two blocks on a multiprocessor with room for them, one
// block where two would have less than three stages each.
TEST(ChooseTest, RingsLeaveRoomForASecondBlock) {
  EXPECT_EQ(RingStages(24 << 10, 12 << 10, 90), 4);
  EXPECT_EQ(RingStages(24 << 10, 12 << 10, 120), 3);
  EXPECT_EQ(RingStages(24 << 10, 12 << 10, 80), 4);
  EXPECT_EQ(RingStages(8 << 10, 0, 90), kQuantStages);
  for (const int capability : kCapabilities) {
    for (int64_t stage = 8 << 10; stage <= 40 << 10; stage += 1 << 10) {
      const int64_t fixed = 19 << 10, stages = RingStages(stage, fixed, capability);
      EXPECT_GE(stages, 2);
      const int64_t shared = RingShared(static_cast<int>(stages), stage, fixed, capability);
      EXPECT_GE(shared, stages * stage + fixed);
      EXPECT_LE(shared, SharedLimit(capability));
      EXPECT_GT(3 * (shared + 1024), SharedLimit(capability) + 1024);
    }
  }
}

// As wide as the deployed models have them, and wider.
TEST(ChooseTest, RoutingFewRowsFitsEveryCapability) {
  for (const DType router : {DType::kF32, DType::kBF16}) {
    for (const int64_t rows : {1, 2, 5, 128}) {
      for (const int64_t width : {2048, 2880, 4096, 5120, 12288}) {
        EXPECT_TRUE(RoutesFew(router, width, rows)) << width << " " << rows;
        for (const int capability : kCapabilities) {
          // What its blocks have besides, and what the driver reserves, is less than 2 KiB.
          EXPECT_LE(RouteFewShared(width, rows) + (2 << 10), SharedLimit(capability))
              << capability << " " << width << " " << rows;
        }
      }
      EXPECT_FALSE(RoutesFew(router, 12296, rows)) << rows;
      EXPECT_FALSE(RoutesFew(router, 2884, rows)) << rows;
    }
    EXPECT_FALSE(RoutesFew(router, 4096, 129));
  }
  EXPECT_FALSE(RoutesFew(DType::kF16, 4096, 1));
  EXPECT_FALSE(RoutesFew(DType::kF8E4M3, 4096, 1));
}

TEST(ChooseTest, BelowTheLowestCapabilityNothingIsChosen) {
  for (const int capability : {61, 70, 75}) {
    EveryShape([&](const ProductShape& s) { EXPECT_EQ(ChooseProduct(capability, s), nullptr); });
    EXPECT_EQ(ChooseAttention(capability, 128), nullptr);
  }
}

TEST(ChooseTest, LaunchesOverlapFromHopperOn) {
  EXPECT_FALSE(HasProgrammaticLaunch(89));
  EXPECT_TRUE(HasProgrammaticLaunch(90));
  EXPECT_TRUE(HasProgrammaticLaunch(120));
}

}  // namespace
}  // namespace switchyard::kernels::cuda
