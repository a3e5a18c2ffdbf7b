-- labels: what each SKU was worth in its outcome window, and whether that made it a hit of its group.
-- Only windows that had closed at the call's moment count. `problem` names the groups from which nothing can be learned.
-- What a SKU sold until it had sold out is the least that it was worth, so it is completed: at the rate at which it sold
-- in its window while it was in stock; of one that was gone before its window opened, at that of its test, times what
-- the windows of its group were worth over their tests.
-- Grain: sku_id.
-- Reads: catalog, groups (sku_id, within_group), {reports} (reports_in_stock, or profit_reports), given_outcomes
-- (sku_id, value, known_at), last_stock_outs (stock_outs at the call's moment), scope.
with
current_reports as (
    select * from {reports}
    where superseded_at is null
),

closed as (
    select
        catalog.sku_id,
        groups.within_group,
        catalog.launched_at,
        epoch(catalog.launched_at) + scope.test_seconds as opens,
        epoch(catalog.launched_at) + scope.test_seconds + scope.outcome_seconds as closes,
        -- Nothing is completed where outcomes are given, nor where a SKU was in stock until its window closed.
        case
            when
                last_stock_outs.sold_out_second < epoch(catalog.launched_at) + scope.test_seconds + scope.outcome_seconds
                and not scope.outcomes_given
                then last_stock_outs.sold_out_second
        end as sold_out_second
    from catalog
    inner join groups on catalog.sku_id = groups.sku_id
    left join last_stock_outs on catalog.sku_id = last_stock_outs.sku_id
    cross join scope
    where epoch(catalog.launched_at) + scope.test_seconds + scope.outcome_seconds <= epoch(scope.as_of)
),

counted as (
    select
        closed.sku_id,
        sum({numerator}) as num,
        sum({denominator}) as den,
        max(epoch(current_reports.known_at)) as last_known
    from closed
    inner join current_reports on closed.sku_id = current_reports.sku_id
    where
        epoch(current_reports.period_start) >= closed.opens
        and epoch(current_reports.period_start) < closed.closes
    group by closed.sku_id
),

tested as (
    select
        closed.sku_id,
        cast(sum({numerator}) as double) as test_num,
        cast(sum({denominator}) as double) as test_den
    from closed
    inner join current_reports on closed.sku_id = current_reports.sku_id
    where
        epoch(current_reports.period_start) >= epoch(closed.launched_at)
        and epoch(current_reports.period_start) < closed.opens
    group by closed.sku_id
),

computed as (
    select
        closed.*,
        tested.test_num,
        tested.test_den,
        cast(counted.num as double) as num,
        cast(counted.den as double) as den,
        coalesce(closed.sold_out_second <= closed.opens, false) as is_early,
        case
            when scope.outcomes_given then given_outcomes.value
            when scope.metric_is_rate then cast(counted.num as double) / nullif(cast(counted.den as double), 0)
            -- A SKU of which no report came sold nothing; one that was seen without the metric was not measured.
            when counted.sku_id is null then 0
            else cast(counted.num as double)
        end as seen_value,
        -- A label is known once its window has closed and the last report that it counts has come.
        greatest(
            closed.closes,
            coalesce(
                case when scope.outcomes_given then epoch(given_outcomes.known_at) else counted.last_known end,
                closed.closes
            )
        ) as known_second
    from closed
    cross join scope
    left join counted on closed.sku_id = counted.sku_id
    left join tested on closed.sku_id = tested.sku_id
    left join given_outcomes on closed.sku_id = given_outcomes.sku_id
),

-- How many times as long as a SKU was in stock its window was, or its test where it was gone by then. A rate needs none.
stretched as (
    select
        computed.*,
        case
            when sold_out_second is null or scope.metric_is_rate then 1
            when is_early
                then
                    least(
                        scope.test_seconds / greatest(sold_out_second - epoch(launched_at), scope.period_seconds),
                        scope.max_completion
                    )
            else least(scope.outcome_seconds / (sold_out_second - opens), scope.max_completion)
        end as stretch
    from computed
    cross join scope
),

-- Decimals, as wherever many are summed.
comparable as (
    select
        stretched.*,
        case when not is_early then cast(num * stretch as decimal(24, 6)) end as open_num,
        case when not is_early then cast(coalesce(den, 1) as decimal(24, 6)) end as open_den,
        case when not is_early then cast(test_num as decimal(24, 6)) end as open_test_num,
        case when not is_early then cast(coalesce(test_den, 1) as decimal(24, 6)) end as open_test_den
    from stretched
),

-- Over the group, and over all: of what was still in stock when its window opened.
totalled as (
    select
        comparable.*,
        cast(sum(open_num) over (partition by within_group) as double) as group_num,
        cast(sum(open_den) over (partition by within_group) as double) as group_den,
        cast(sum(open_test_num) over (partition by within_group) as double) as group_test_num,
        cast(sum(open_test_den) over (partition by within_group) as double) as group_test_den,
        max(known_second) over (partition by within_group) as group_known_second,
        cast(sum(open_num) over () as double) as all_num,
        cast(sum(open_den) over () as double) as all_den,
        cast(sum(open_test_num) over () as double) as all_test_num,
        cast(sum(open_test_den) over () as double) as all_test_den
    from comparable
),

completed as (
    select
        totalled.*,
        sold_out_second is not null as is_completed,
        case
            when is_early
                then
                    test_num / case when scope.metric_is_rate then nullif(test_den, 0) else 1 end * stretch
                    * coalesce(
                        group_num / nullif(group_den, 0) / nullif(group_test_num / nullif(group_test_den, 0), 0),
                        all_num / nullif(all_den, 0) / nullif(all_test_num / nullif(all_test_den, 0), 0)
                    )
            when sold_out_second is not null then seen_value * stretch
            else seen_value
        end as value
    from totalled
    cross join scope
),

known as (
    select
        sku_id,
        within_group,
        launched_at,
        value,
        coalesce(seen_value, 0) as seen_value,
        is_completed,
        case when is_early then group_known_second else known_second end as known_second
    from completed
    cross join scope
    where value is not null and known_second <= epoch(scope.as_of)
),

placed as (
    select
        known.*,
        count(*) over (partition by within_group) as group_skus,
        min(value) over (partition by within_group) as lowest,
        max(value) over (partition by within_group) as highest,
        rank() over (partition by within_group order by value desc nulls last) as place,
        rank() over (partition by within_group order by value asc nulls last) as place_from_below
    from known
),

judged as (
    select
        sku_id,
        within_group,
        launched_at,
        value,
        make_timestamp(cast(known_second * 1000000 as bigint)) as known_at,
        group_skus,
        -- Share of the group that is worth less, ties in the middle: 0 < standing < 1.
        (place_from_below + group_skus - place) / (2.0 * group_skus) as standing,
        case
            when scope.min_value is not null then value >= scope.min_value
            else place <= ceil(scope.top_share * group_skus - 1e-9) and value > lowest
        end as hit,
        case
            when group_skus < scope.min_group then 'too_small'
            when lowest = highest and scope.min_value is null then 'all_equal'
        end as problem,
        is_completed,
        seen_value
    from placed
    cross join scope
)

select * from judged
