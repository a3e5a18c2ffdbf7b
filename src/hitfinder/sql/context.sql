-- context: what else is known of each SKU at each moment: its age, price against its category, breadth, calendar.
-- Grain: as_of, sku_id.
-- Reads: totals, scope.
with
batch_sizes as (
    select
        as_of,
        batch_id,
        count(*) as batch_skus
    from totals
    group by as_of, batch_id
),

category_prices as (
    select
        as_of,
        batch_id,
        category,
        median(price) as category_price
    from totals
    group by as_of, batch_id, category
),

style_sizes as (
    select
        as_of,
        batch_id,
        style_id,
        count(*) as style_skus
    from totals
    group by as_of, batch_id, style_id
),

described as (
    select
        totals.as_of,
        totals.sku_id,
        totals.batch_id,
        totals.style_id,
        totals.category,
        totals.launched_at,
        totals.impressions,
        totals.visitors,
        totals.clicks,
        totals.favorites,
        totals.carts,
        totals.orders,
        totals.units,
        totals.revenue,
        totals.refunds,
        totals.spend,
        totals.age_days,
        totals.is_sold_out,
        totals.age_days * 86400.0 / scope.test_seconds as age_share,
        totals.active_periods,
        totals.active_periods / greatest(totals.days * 86400.0 / scope.period_seconds, 1) as active_share,
        case when totals.last_seen_days is not null then greatest(totals.days - totals.last_seen_days, 0) end
        as quiet_days,
        totals.channels,
        totals.creatives,
        style_sizes.style_skus - 1 as siblings,
        batch_sizes.batch_skus,
        case when totals.price > 0 then ln(totals.price) end as log_price,
        case
            when totals.price > 0 and category_prices.category_price > 0
                then ln(totals.price / category_prices.category_price)
        end as price_lead,
        extract(month from totals.as_of) as month,
        -- 0 is Sunday. Engines number weekdays differently; 1970 began on a Thursday in all of them.
        (cast(floor(epoch(totals.launched_at) / 86400.0) as bigint) + 4) % 7 as launch_weekday
    from totals
    inner join batch_sizes on totals.as_of = batch_sizes.as_of and totals.batch_id = batch_sizes.batch_id
    inner join category_prices
        on
            totals.as_of = category_prices.as_of
            and totals.batch_id = category_prices.batch_id
            and totals.category = category_prices.category
    inner join style_sizes
        on
            totals.as_of = style_sizes.as_of
            and totals.batch_id = style_sizes.batch_id
            and totals.style_id = style_sizes.style_id
    cross join scope
)

select * from described
